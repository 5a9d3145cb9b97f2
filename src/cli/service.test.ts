/** A service's life, as systemd and Kubernetes lead it: start, SIGHUP, SIGTERM. */
import assert from "node:assert/strict";
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { closeSync, constants, existsSync, mkdtempSync, openSync, rmSync, statSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

const BIN = join(import.meta.dirname, "../../bin");

let directory: string;

before(() => {
  directory = mkdtempSync(join(tmpdir(), "service-"));
});
after(() => rmSync(directory, { recursive: true }));

class Program {
  readonly child: ChildProcess;
  readonly ended: Promise<number | null>;
  output = "";

  constructor(name: string, args: readonly string[]) {
    const env = { PATH: process.env["PATH"] ?? "", HOME: directory };
    this.child = spawn(join(BIN, name), args, { env, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => (this.output += text));
    }
    this.ended = new Promise((resolve, reject) => {
      this.child.once("error", reject);
      this.child.once("close", (code) => resolve(code));
    });
  }

  async until(reached: () => boolean): Promise<void> {
    for (let tries = 0; tries < 2_400 && !reached(); tries++) await new Promise((resolve) => setTimeout(resolve, 25));
    assert.ok(reached(), this.output);
  }
}

test("a supernode starts, makes its token, takes a new configuration, refuses a broken one, and drains", async () => {
  const config = join(directory, "supernode.yaml");
  const data = join(directory, "data");
  writeFileSync(config, "uploadLimit: 1MiB\n");
  const supernode = new Program("supernode", ["--listen", "127.0.0.1:0", "--data-dir", data, "--config", config]);
  const token = join(data, "join-token");
  await supernode.until(() => existsSync(token) && supernode.output.includes('"level"'));
  assert.equal(statSync(token).mode & 0o777, 0o600);

  writeFileSync(config, "uploadLimit: 2MiB\nreservedFree: 2GiB\n");
  supernode.child.kill("SIGHUP");
  await supernode.until(() => supernode.output.includes("the new reservedFree"));

  writeFileSync(config, "uploadLimit: much\nunheardOf: 1\n");
  supernode.child.kill("SIGHUP");
  await supernode.until(() => supernode.output.includes("reload refused"));
  assert.match(supernode.output, /\[CONFIG_INVALID\] .*supernode\.yaml:1: uploadLimit: "much" is not a rate/);
  assert.match(supernode.output, /\[CONFIG_INVALID\] .*supernode\.yaml:2: unknown key "unheardOf"/);

  writeFileSync(config, "scrubRate: 1MiB\ntlsCa: /nowhere\n");
  supernode.child.kill("SIGHUP");
  await supernode.until(() => supernode.output.includes("gives a TLS file, and tls is off"));
  assert.doesNotMatch(supernode.output, /the new (scrubRate|tlsCa)/);

  supernode.child.kill("SIGTERM");
  assert.equal(await supernode.ended, 0, supernode.output);
  assert.match(supernode.output, /^supernode: SIGTERM: finishing what is under way, then ending$/m);
});

test("a signal while starting ends it in order, too", async () => {
  const supernode = new Program("supernode", ["--listen", "127.0.0.1:0", "--data-dir", join(directory, "early")]);
  await supernode.until(() => existsSync(join(directory, "early")));
  supernode.child.kill("SIGINT");
  assert.equal(await supernode.ended, 0, supernode.output);
});

test("a reload that comes while the start waits for the token ends nothing", async () => {
  const token = join(directory, "late-token");
  const ports = ["--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0", "--supernode", "127.0.0.1:9"];
  const files = ["--join-token-file", token, "--data-dir", join(directory, "late"), "--socket", join(directory, "late.sock")];
  const dfdaemon = new Program("dfdaemon", [...ports, ...files]);
  await dfdaemon.until(() => dfdaemon.output.includes("waiting for the supernode's join token"));
  dfdaemon.child.kill("SIGHUP");
  writeFileSync(token, "a-token-of-some-length\n");
  await dfdaemon.until(() => dfdaemon.output.includes("dfdaemon is up") || dfdaemon.child.signalCode !== null);
  dfdaemon.child.kill("SIGTERM");
  assert.equal(await dfdaemon.ended, 0, dfdaemon.output);
});

test("a service whose log's disk is full goes on, and ends when it is told to", async () => {
  const data = join(directory, "full");
  const env = { PATH: process.env["PATH"] ?? "", HOME: directory };
  const child = spawn(join(BIN, "supernode"), ["--listen", "127.0.0.1:0", "--data-dir", data], { env, stdio: ["ignore", openSync("/dev/full", "w"), "pipe"] });
  const ended = new Promise((resolve) => child.once("close", resolve));
  const patience = setTimeout(() => child.kill("SIGKILL"), 20_000);
  // It is waited for by its words on stderr: it makes its token, and later says that it ends.
  await new Promise((resolve) => child.stderr?.once("data", resolve));
  child.kill("SIGTERM");
  assert.equal(await ended, 0);
  clearTimeout(patience);
});

test("whoever reads a service's words and stands still does not keep it from its end, where log and stderr are one, as systemd has them", async () => {
  const fifo = join(directory, "words");
  execFileSync("mkfifo", [fifo]);
  const reader = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
  const words = openSync(fifo, "w");
  try {
    for (;;) writeSync(reader, "nobody reads this\n");
  } catch {
    // It is full.
  }
  const data = join(directory, "unheard");
  const env = { PATH: process.env["PATH"] ?? "", HOME: directory };
  const child = spawn(join(BIN, "supernode"), ["--listen", "127.0.0.1:0", "--data-dir", data], { env, stdio: ["ignore", words, words] });
  const ended = new Promise((resolve) => child.once("close", resolve));
  const patience = setTimeout(() => child.kill("SIGKILL"), 20_000);
  while (!existsSync(join(data, "join-token"))) await new Promise((resolve) => setTimeout(resolve, 20));
  child.kill("SIGTERM");
  assert.equal(await ended, 0);
  clearTimeout(patience);
  for (const fd of [reader, words]) closeSync(fd);
});

test("what keeps a service from starting is its exit code", async () => {
  writeFileSync(join(directory, "a-file"), "");
  const cases: readonly (readonly [readonly string[], number, RegExp])[] = [
    [["dfdaemon", "--cache-quota", "lots"], 2, /^\[CONFIG_INVALID\] --cache-quota: "lots" is not a size/m],
    [["dfdaemon", "extra"], 2, /^\[USAGE\] /m],
    [["supernode", "--data-dir", join(directory, "a-file/below"), "--listen", "127.0.0.1:0"], 3, /^\[DISK_FAILED\] /m],
    [["supernode", "--data-dir", join(directory, "other"), "--listen", "192.0.2.1:1"], 4, /^\[LISTEN_FAILED\] /m],
  ];
  await Promise.all(
    cases.map(async ([[name = "", ...args], exitCode, said]) => {
      const program = new Program(name, args);
      assert.equal(await program.ended, exitCode, program.output);
      assert.match(program.output, said);
    }),
  );
});

test("only a signal ends a service with 0: not what it has left to do, a throw, or a rejection that nobody hears", async () => {
  const ending = async (life: string): Promise<number | null> => {
    const script = join(directory, "service.mjs");
    const here = (name: string): string => JSON.stringify(join(import.meta.dirname, name));
    const definition = `{ program: SUPERNODE, configure: () => ({}), start: async () => { ${life}; return { reload() {}, close: async () => {} }; } }`;
    writeFileSync(
      script,
      `const { SUPERNODE } = await import(${here("config-schema.ts")}); const { runService } = await import(${here("service.ts")});` +
        `await runService(${definition}, []);`,
    );
    const child = spawn(process.execPath, [script], { stdio: "ignore" });
    return await new Promise((resolve) => child.once("close", resolve));
  };
  // Node's own word for an await that nothing is left to end.
  assert.equal(await ending(""), 13);
  assert.equal(await ending("setImmediate(() => { throw new Error('x'); })"), 1);
  assert.equal(await ending("setImmediate(() => void Promise.reject(new Error('x')))"), 1);
  assert.equal(await ending("setImmediate(() => process.kill(process.pid, 'SIGTERM')); setTimeout(() => {}, 200)"), 0);
});

test("a service that is told to end while it starts ends in time, however long the start", async () => {
  const modules = ["service.ts", "config-schema.ts"].map((name) => JSON.stringify(join(import.meta.dirname, name)));
  const program = `
    Promise.all([${modules.map((name) => `import(${name})`).join(", ")}]).then(([{ runService }, { SUPERNODE }]) => runService({
      program: SUPERNODE, drainMsMax: 200, configure: () => ({}),
      start: () => new Promise(() => setInterval(() => {}, 1_000) && console.log("starting")),
    }, []));`;
  const child = spawn(process.execPath, ["-e", program], { env: { HOME: directory }, stdio: ["ignore", "pipe", "pipe"] });
  const ended = new Promise((resolve) => child.once("close", resolve));
  await new Promise((resolve) => void child.stdout.once("data", resolve));
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (said += text));
  child.kill("SIGTERM");
  assert.equal(await ended, 1);
  assert.match(said, /giving up/);
});
