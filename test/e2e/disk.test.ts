/** Disks that are full, read-only or broken, under a real supernode: a clear error, nobody else harmed, no false success. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash, randomFillSync } from "node:crypto";
import { closeSync, existsSync, openSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync, writeSync } from "node:fs";
import { basename } from "node:path";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";

import { command, dfget, startLoopbackDaemon, Supernode } from "./lib/dragonfly.ts";
import { Origin } from "./lib/origin.ts";
import { type Finished, Lab, waitFor } from "./lib/processes.ts";

const MIB = 1 << 20;

let smallDiskCount = 0;

/** An ext4 file system of its own on a loop device. */
class SmallDisk {
  readonly path: string;
  readonly #imagePath: string;
  readonly #device: string;

  constructor(lab: Lab, bytes: number, options = "rw") {
    const name = `disk-${smallDiskCount++}`;
    const imagePath = lab.path(`${name}.img`);
    this.#imagePath = imagePath;
    this.path = lab.makeDir(name);
    writeFileSync(imagePath, "");
    truncateSync(imagePath, bytes);
    execFileSync("mkfs.ext4", ["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-J", "size=4", imagePath], { stdio: "ignore" });
    this.#device = execFileSync("losetup", ["--find", "--show", imagePath], { encoding: "utf8" }).trim();
    lab.onClose(() => execFileSync("losetup", ["--detach", this.#device]));
    execFileSync("mount", ["-t", "ext4", "-o", options, this.#device, this.path]);
    lab.onClose(() => execFileSync("umount", ["--lazy", this.path]));
  }

  /** The device loses its end: whatever is read or written there fails with EIO from now on. */
  cutAt(bytes: number): void {
    truncateSync(this.#imagePath, bytes);
    execFileSync("losetup", ["--set-capacity", this.#device]);
  }

  get name(): string {
    return basename(this.#device);
  }
}

/** Takes what room there is, and what the supernode makes by giving up files, until it is told to stop. */
class Filler {
  readonly #pathPrefix: string;
  #written = 0;
  #isStopped = false;

  constructor(directory: string) {
    this.#pathPrefix = `${directory}/filler`;
  }

  /** Never resolves: fails if a write fails for another reason than a full disk. */
  async keepFull(): Promise<never> {
    while (!this.#isStopped) {
      try {
        writeFileSync(`${this.#pathPrefix}${this.#written++}`, randomBytes(MIB));
      } catch (error) {
        assert.equal((error as NodeJS.ErrnoException).code, "ENOSPC");
        await setTimeout(20);
      }
    }
    return new Promise(() => {});
  }

  remove(): void {
    this.#isStopped = true;
    for (let at = 0; at < this.#written; at++) rmSync(`${this.#pathPrefix}${at}`, { force: true });
  }
}

/** Writes to a new file until the device is full. @returns its length */
function fillUp(path: string, stepBytes = 64 * 1024): number {
  const fd = openSync(path, "w");
  const chunk = randomBytes(stepBytes);
  let lengthBytes = 0;
  try {
    for (;;) lengthBytes += writeSync(fd, chunk);
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, "ENOSPC");
    return lengthBytes;
  } finally {
    closeSync(fd);
  }
}

interface Site {
  readonly lab: Lab;
  readonly origin: Origin;
  readonly supernode: Supernode;
  readonly tokenFile: string;
}

async function startSite(lab: Lab, disk: SmallDisk, flags: readonly string[] = []): Promise<Site> {
  const origin = await Origin.start(lab);
  const supernode = await Supernode.start(lab, "127.0.0.1", ["--data-dir", `${disk.path}/supernode`, "--reserved-free", "0", "--scrub-rate", "0", ...flags]);
  return { lab, origin, supernode, tokenFile: `${disk.path}/supernode/join-token` };
}

function randomBytes(length: number): Buffer {
  return randomFillSync(Buffer.allocUnsafe(length));
}

let downloadCount = 0;

/** As a peer of its own, on a good disk. */
async function download({ lab, supernode, tokenFile }: Site, url: string, ...flags: readonly string[]): Promise<Finished & { readonly digest: string | undefined }> {
  const output = lab.path(`out-${downloadCount++}`);
  const done = await dfget(lab, [url, "-O", output, "--socket", lab.path("none"), "--supernode", supernode.listen, "--join-token-file", tokenFile, ...flags]);
  const digest = done.code === 0 ? sha256(readFileSync(output)) : undefined;
  rmSync(output, { force: true });
  return { ...done, digest };
}

function sha256(content: Buffer): string {
  return createHash("sha256").update(content).digest("hex");
}

async function assertServedFromCache(site: Site, path: string, url: string, content: Buffer): Promise<void> {
  const before = site.origin.log.bytes(path);
  const done = await download(site, url, "--no-back-source");
  assert.equal(done.digest, sha256(content), done.stderr);
  assert.equal(site.origin.log.bytes(path), before, "the origin was read again");
}

function bytesOf(origin: Origin, path: string, program: RegExp): number {
  return origin.log.of(path).reduce((sum, { bytes, userAgent }) => sum + (program.test(userAgent) ? bytes : 0), 0);
}

void test("a full disk: what cannot fit is refused before its first byte, what runs full fails with its name, others go on", async () => {
  const lab = new Lab("disk-full");
  await lab.use(async () => {
    const disk = new SmallDisk(lab, 64 * MIB);
    const site = await startSite(lab, disk);
    const { origin, supernode } = site;
    const small = randomBytes(12 * MIB);
    const smallUrl = origin.put("/small", small);
    assert.equal((await download(site, smallUrl)).digest, sha256(small));

    const huge = randomBytes(100 * MIB);
    const hugeUrl = origin.put("/huge", huge);
    const refused = await download(site, hugeUrl, "--no-back-source");
    assert.deepEqual([refused.code, /\[DISK_FULL\] no room for \d+ more bytes in .*: the file system has \d+ bytes free, .*; free some space/.test(refused.stderr)], [3, true], refused.stderr);
    assert.equal(bytesOf(origin, "/huge", /dragonfly/), 0, "not a byte of it was read");
    assert.equal((await download(site, hugeUrl)).digest, sha256(huge), "with the origin allowed it comes all the same");
    await assertServedFromCache(site, "/small", smallUrl, small);

    // Its length is not known before: it fails on the way.
    const endless = origin.put("/endless", huge, { ranges: false });
    const failed = await download(site, endless, "--no-back-source");
    assert.deepEqual([failed.code, /\[DISK_FULL\]/.test(failed.stderr)], [3, true], failed.stderr);

    // Somebody else fills the disk in mid-read: now the write itself is refused.
    const medium = randomBytes(24 * MIB);
    const mediumUrl = origin.put("/medium", medium);
    origin.bytesPerSecond = 4 * MIB;
    const downloading = download(site, mediumUrl, "--no-back-source");
    const early = await Promise.race([downloading, waitFor("the read has begun", () => origin.log.bytes("/medium") >= 4 * MIB)]);
    assert.equal(early, undefined, early?.stderr);
    const filler = new Filler(disk.path);
    const interrupted = await Promise.race([downloading, filler.keepFull()]);
    filler.remove();
    assert.deepEqual([interrupted.code, /\[DISK_FULL\]/.test(interrupted.stderr)], [3, true], interrupted.stderr);

    // Room again: the same file completes, and its first part is not read again.
    origin.bytesPerSecond = Number.POSITIVE_INFINITY;
    assert.equal((await download(site, mediumUrl, "--no-back-source")).digest, sha256(medium));
    await assertServedFromCache(site, "/medium", mediumUrl, medium);
    const metrics = await (await fetch(`http://${supernode.listen}/metrics`)).text();
    assert.match(metrics, /^dragonfly_supernode_cache_refused_requests\{reason="free-space"\} [1-9]/m);
  });
});

void test("a download whose disk fills up is gone on with from there, as it says: what is there is written down, too", async () => {
  const lab = new Lab("disk-output");
  await lab.use(async () => {
    const origin = await Origin.start(lab);
    const supernode = await Supernode.start(lab, "127.0.0.1", ["--scrub-rate", "0"]);
    const small = new SmallDisk(lab, 40 * MIB);
    const daemon = await startLoopbackDaemon(lab, "host", supernode, ["--reserved-free", "0"]);
    const content = randomBytes(24 * MIB);
    const url = origin.put("/file", content);
    const output = `${small.path}/file`;
    const flags = [url, "-O", output, "--socket", daemon.socket];
    origin.bytesPerSecond = 4 * MIB;
    const downloading = dfget(lab, flags);
    const early = await Promise.race([downloading, waitFor("some of it is there", () => existsSync(`${output}.part`) && statSync(`${output}.part`).size >= 4 * MIB)]);
    assert.equal(early, undefined, early?.stderr);
    // To the last block.
    const fillers = [64 * 1024, 512].map((stepBytes) => {
      const path = `${small.path}/filler-${stepBytes}`;
      fillUp(path, stepBytes);
      return path;
    });
    const full = await downloading;
    assert.deepEqual([full.code, /\[DISK_FULL\]/.test(full.stderr), /file\.part keeps [\d.]+ MiB; go on with -c/.test(full.stderr)], [3, true, true], full.stderr);
    const { syncedBytes } = JSON.parse(readFileSync(`${output}.part.json`, "utf8")) as { readonly syncedBytes: number };
    assert.ok(syncedBytes > 3 * MIB, `${syncedBytes} bytes of it`);
    for (const path of fillers) rmSync(path);
    // What was removed is free once the journal says so.
    execFileSync("sync", ["--file-system", small.path]);
    origin.bytesPerSecond = Number.POSITIVE_INFINITY;
    const done = await dfget(lab, [...flags, "-c"]);
    assert.equal(done.code, 0, done.stderr);
    assert.equal(sha256(readFileSync(output)), sha256(content));
  });
});

void test("a disk with hardly any room left: what is cached makes way, however little the device takes of what it says is free", async () => {
  const lab = new Lab("disk-gap");
  await lab.use(async () => {
    const disk = new SmallDisk(lab, 64 * MIB);
    const site = await startSite(lab, disk);
    const fillerPath = `${disk.path}/filler`;
    for (let at = 0; at < 8; at++) {
      const gapBytes = at * 96 * 1024;
      const old = randomBytes(24 * MIB);
      assert.equal((await download(site, site.origin.put(`/old-${at}`, old), "--no-back-source")).digest, sha256(old));
      truncateSync(fillerPath, fillUp(fillerPath) - gapBytes);
      const content = randomBytes(12 * MIB);
      const done = await download(site, site.origin.put(`/new-${at}`, content), "--no-back-source");
      assert.equal(done.digest, sha256(content), `${gapBytes} bytes left: ${done.stderr}`);
      rmSync(fillerPath);
    }
  });
});

void test("a supernode starts on a full disk, with what it remembers of files: what is cached is what can make room", async () => {
  const lab = new Lab("disk-full-start");
  await lab.use(async () => {
    const disk = new SmallDisk(lab, 64 * MIB);
    const site = await startSite(lab, disk);
    const old = randomBytes(24 * MIB);
    const oldUrl = site.origin.put("/old", old);
    assert.equal((await download(site, oldUrl, "--no-back-source")).digest, sha256(old));
    await site.supernode.service.stop();
    fillUp(`${disk.path}/filler`);
    // To the last block.
    fillUp(`${disk.path}/filler-2`, 1024);
    await site.supernode.restart();
    await assertServedFromCache(site, "/old", oldUrl, old);
    const content = randomBytes(12 * MIB);
    assert.equal((await download(site, site.origin.put("/new", content), "--no-back-source")).digest, sha256(content));
  });
});

void test("a quota: files that nobody needs make way within the second, one that can never fit is refused by name", async () => {
  const lab = new Lab("disk-quota");
  await lab.use(async () => {
    const site = await startSite(lab, new SmallDisk(lab, 128 * MIB), ["--cache-quota", "30MiB"]);
    const { origin } = site;
    for (let at = 0; at < 6; at++) {
      const content = randomBytes(12 * MIB);
      assert.equal((await download(site, origin.put(`/file-${at}`, content), "--no-back-source")).digest, sha256(content), `file ${at}`);
    }
    const refused = await download(site, origin.put("/huge", randomBytes(31 * MIB)), "--no-back-source");
    assert.deepEqual([refused.code, /\[CACHE_QUOTA_EXCEEDED\] .*the cache quota of 31457280 bytes .*raise --cache-quota/.test(refused.stderr)], [3, true], refused.stderr);
    assert.equal(bytesOf(origin, "/huge", /dragonfly/), 0);
    const metrics = await (await fetch(`http://${site.supernode.listen}/metrics`)).text();
    assert.match(metrics, /^dragonfly_supernode_cache_evicted_tasks\{reason="quota"\} 4$/m);
    assert.match(metrics, /^dragonfly_supernode_cache_evicted_tasks\{reason="free-space"\} 0$/m);
    assert.match(metrics, /^dragonfly_supernode_cache_refused_requests\{reason="quota"\} [1-9]/m);
  });
});

void test("a read-only disk: refused by name at the start; turned so under way, what is cached is served and the rest fails by name", async () => {
  const lab = new Lab("disk-read-only");
  await lab.use(async () => {
    const disk = new SmallDisk(lab, 64 * MIB, "errors=remount-ro");
    const site = await startSite(lab, disk);
    const { origin, supernode } = site;
    const content = randomBytes(8 * MIB);
    const url = origin.put("/cached", content);
    assert.equal((await download(site, url)).digest, sha256(content));
    // As the kernel does when it finds the file system damaged.
    writeFileSync(`/sys/fs/ext4/${disk.name}/trigger_fs_error`, "1");
    assert.throws(() => writeFileSync(`${disk.path}/probe`, ""), { code: "EROFS" });
    await assertServedFromCache(site, "/cached", url, content);
    const other = randomBytes(4 * MIB);
    const otherUrl = origin.put("/other", other);
    const failed = await download(site, otherUrl, "--no-back-source");
    assert.deepEqual([failed.code, /\[DISK_FAILED\] .*read-only; remount it writable/.test(failed.stderr)], [3, true], failed.stderr);
    assert.equal((await download(site, otherUrl)).digest, sha256(other), "with the origin allowed it comes all the same");

    // A file with a digest is lent: peers read what the supernode cannot, once in all, and what is cached goes on being served.
    const lent = randomBytes(16 * MIB);
    const lentUrl = origin.put("/lent", lent);
    // Slow enough that all four are at it before the first one has it and goes.
    origin.bytesPerSecond = 2 * MIB;
    const wanted = Promise.all(Array.from({ length: 4 }, () => download(site, lentUrl, "--digest", `sha256:${sha256(lent)}`)));
    await assertServedFromCache(site, "/cached", url, content);
    for (const done of await wanted) assert.equal(done.digest, sha256(lent), done.stderr);
    assert.equal(bytesOf(origin, "/lent", /dragonfly/), 0, "the supernode read what it cannot store");
    assert.equal(origin.log.bytes("/lent"), lent.length, "it is read once in all");
    origin.bytesPerSecond = Number.POSITIVE_INFINITY;
    assert.equal(await supernode.isReady(), true);
    await supernode.service.stop();

    const again = await command(lab, "supernode", ["--listen", supernode.listen, "--data-dir", `${disk.path}/supernode`]);
    assert.deepEqual([again.code, /\[DISK_FAILED\] .*read-only/.test(again.stderr)], [3, true], again.stderr);
  });
});

void test("a host whose own disk turns read-only: its engines and users get every byte, others from it what it has, and the supernode is unharmed", async () => {
  const lab = new Lab("disk-host-read-only");
  await lab.use(async () => {
    const disk = new SmallDisk(lab, 64 * MIB, "errors=remount-ro");
    const origin = await Origin.start(lab);
    const supernode = await Supernode.start(lab, "127.0.0.1", ["--scrub-rate", "0", "--cache-quota", "1MiB"]);
    const daemon = await startLoopbackDaemon(lab, "host", supernode, ["--data-dir", `${disk.path}/host`, "--reserved-free", "0"]);
    const through = async (url: string, ...flags: readonly string[]): Promise<Finished & { readonly digest: string | undefined }> => {
      const output = lab.path(`out-${downloadCount++}`);
      const done = await dfget(lab, [url, "-O", output, "--socket", daemon.socket, ...flags]);
      return { ...done, digest: done.code === 0 ? sha256(readFileSync(output)) : undefined };
    };
    // Lent to this host, for the supernode has no room: it holds it alone.
    const content = randomBytes(8 * MIB);
    const url = origin.put("/cached", content);
    const digest = `sha256:${sha256(content)}`;
    assert.equal((await through(url, "--digest", digest)).digest, sha256(content));
    writeFileSync(`/sys/fs/ext4/${disk.name}/trigger_fs_error`, "1");
    assert.throws(() => writeFileSync(`${disk.path}/probe`, ""), { code: "EROFS" });

    const before = origin.log.bytes("/cached");
    assert.equal((await through(url, "--digest", digest, "--no-back-source")).digest, sha256(content), "what it has it gives");
    const other = randomBytes(4 * MIB);
    const otherUrl = origin.put("/other", other);
    const otherDigest = `sha256:${sha256(other)}`;
    const failed = await through(otherUrl, "--digest", otherDigest, "--no-back-source");
    assert.deepEqual([failed.code !== 0, failed.digest], [true, undefined], failed.stderr);
    assert.match(failed.stderr, /\[DISK_FAILED\] .*read-only/);
    assert.equal((await through(otherUrl, "--digest", otherDigest)).digest, sha256(other), "with the origin allowed it comes all the same");
    // What the sick host cannot be lent another is; and what it has, it gives.
    const site = { lab, origin, supernode, tokenFile: supernode.tokenFile };
    assert.equal((await download(site, otherUrl, "--digest", otherDigest)).digest, sha256(other));
    assert.equal((await download(site, url, "--digest", digest, "--no-back-source")).digest, sha256(content));
    assert.equal(origin.log.bytes("/cached"), before, "it was read again, although a host has it");
    assert.equal(await supernode.isReady(), true);
  });
});

void test("a disk that answers with input/output errors: said by name, never kept as good, and every byte delivered is right", async () => {
  const lab = new Lab("disk-broken");
  await lab.use(async () => {
    const disk = new SmallDisk(lab, 128 * MIB, "errors=continue");
    const site = await startSite(lab, disk);
    const { origin, supernode } = site;
    const good = randomBytes(6 * MIB);
    const goodUrl = origin.put("/good", good);
    assert.equal((await download(site, goodUrl)).digest, sha256(good));
    execFileSync("sync", ["--file-system", disk.path]);
    disk.cutAt(24 * MIB);

    const lost = randomBytes(40 * MIB);
    const lostUrl = origin.put("/lost", lost);
    origin.bytesPerSecond = 12 * MIB;
    // What came is verified in memory before it is given on: right, or an error.
    const done = await download(site, lostUrl);
    assert.equal(done.digest, sha256(lost), done.stderr);
    const log = (): string => readFileSync(supernode.service.logFile, "utf8");
    await waitFor("the supernode says what is wrong", () => /cannot [^"]*: the device reports an input\/output error; check the disk and the kernel's log/.test(log()));

    // Whatever the disk still gives back: right bytes or an error, never others.
    const forget = "dd if=$1 iflag=nocache count=0 status=none 2>/dev/null; true";
    execFileSync("find", [disk.path, "-type", "f", "-exec", "sh", "-c", forget, "sh", "{}", ";"], { stdio: "ignore" });
    origin.bytesPerSecond = Number.POSITIVE_INFINITY;
    const again = await download(site, lostUrl);
    assert.equal(again.digest, sha256(lost), again.stderr);
    assert.equal((await download(site, goodUrl)).digest, sha256(good), "and others are unharmed, or fetched anew");
    assert.equal(await supernode.isReady(), true);
  });
});
