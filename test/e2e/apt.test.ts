/** A real apt behind dfdaemon's proxy: it asks for its next packages before it has the last one's answer, as many as ten ahead. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { startLoopbackDaemon, Supernode } from "./lib/dragonfly.ts";
import { Nginx } from "./lib/nginx.ts";
import { Lab, linesOf } from "./lib/processes.ts";

const PACKAGE_COUNT = 12;
/** More than comes with the join's answer. */
const CONTENT_BYTES = 200 * 1024;
/** apt gives up on an answer after this. */
const APT_TIMEOUT_SECONDS = 30;

void test("packages that go through the swarm come to apt without a pause, each as its index says", async () => {
  const lab = new Lab("apt");
  await lab.use(async () => {
    const nginx = await Nginx.start(lab, { debian: { etag: true, lastModified: true, ranges: true } });
    const names = Array.from({ length: PACKAGE_COUNT }, (_, n) => `swarmed-${n}`);
    const digests = await publish(lab, nginx.root, names);
    const supernode = await Supernode.start(lab, "127.0.0.1");
    const daemon = await startLoopbackDaemon(lab, "dfdaemon", supernode, ["--proxy-files", `${nginx.url}/debian/*.deb`]);
    const apt = aptOf(lab, `deb [trusted=yes] ${nginx.url}/debian ./`, daemon.mirror);
    await lab.must([...apt, "update"]);
    const { code, stderr, ms } = await lab.run([...apt, "download", ...names]);
    assert.equal(code, 0, stderr);
    assert.ok(ms < APT_TIMEOUT_SECONDS * 1000 * 0.6, `${ms} ms: it waited for an answer that did not come`);
    for (const name of names) assert.equal(createHash("sha256").update(readFileSync(lab.path(fileOf(name)))).digest("hex"), digests.get(name), name);
    const throughSwarm = linesOf(daemon.service.logFile).filter((line) => /"kind":"file".*\.deb/.test(line));
    assert.equal(throughSwarm.length, PACKAGE_COUNT, "one request each");
  });
});

function fileOf(name: string): string {
  return `${name}_1.0_all.deb`;
}

/** Builds packages, and their index. @returns each one's SHA-256 */
async function publish(lab: Lab, root: string, names: readonly string[]): Promise<Map<string, string>> {
  const digests = new Map<string, string>();
  const index: string[] = [];
  for (const name of names) {
    const control = `Package: ${name}\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody <nobody@example.test>\nDescription: of a test\n`;
    const tree = lab.makeDir(`tree-${name}`);
    mkdirSync(join(tree, "DEBIAN"));
    writeFileSync(join(tree, "DEBIAN", "control"), control);
    writeFileSync(join(tree, "content"), randomBytes(CONTENT_BYTES));
    // oxlint-disable-next-line no-await-in-loop -- one after the other is as good
    await lab.must(["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, lab.path(fileOf(name))]);
    renameSync(lab.path(fileOf(name)), join(root, fileOf(name)));
    const bytes = readFileSync(join(root, fileOf(name)));
    const digest = createHash("sha256").update(bytes).digest("hex");
    digests.set(name, digest);
    index.push(`${control}Filename: ./${fileOf(name)}\nSize: ${bytes.length}\nSHA256: ${digest}\n`);
  }
  writeFileSync(join(root, "Packages"), index.join("\n"));
  return digests;
}

/** apt-get that knows one source, one proxy, and nothing of this machine. */
function aptOf(lab: Lab, source: string, proxy: string): readonly string[] {
  for (const directory of ["apt/state/lists/partial", "apt/cache/archives/partial", "apt/etc/preferences.d"]) lab.makeDir(directory);
  const sources = lab.writeFile("apt/sources.list", `${source}\n`);
  const status = lab.writeFile("apt/status", "");
  const settings = {
    "Dir::State": lab.path("apt/state"), "Dir::Cache": lab.path("apt/cache"), "Dir::State::status": status,
    "Dir::Etc::SourceList": sources, "Dir::Etc::SourceParts": "/dev/null", "Dir::Etc::PreferencesParts": lab.path("apt/etc/preferences.d"),
    "APT::Sandbox::User": "root", "Acquire::http::Proxy": proxy, "Acquire::http::Timeout": String(APT_TIMEOUT_SECONDS), "Acquire::Languages": "none",
  };
  return ["apt-get", "-qq", ...Object.entries(settings).flatMap(([name, value]) => ["-o", `${name}=${value}`])];
}
