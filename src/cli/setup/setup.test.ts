/** `dfdaemon setup` as a shell meets it. What it plans and writes: src/engines. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, test } from "node:test";

const DFDAEMON = join(import.meta.dirname, "../../../bin/dfdaemon");
const parent = mkdtempSync(join(tmpdir(), "setup-"));
let root: string;
after(() => rmSync(parent, { recursive: true }));
beforeEach(() => {
  root = mkdtempSync(join(parent, "root-"));
  mkdirSync(join(root, "etc/docker"), { recursive: true });
  writeFileSync(join(root, "etc/docker/daemon.json"), '{\n  "debug": true\n}\n');
});

function setup(...args: readonly string[]): { readonly code: number | null; readonly stdout: string; readonly stderr: string } {
  const argv = ["setup", "--root", root, "--data-dir", "/var/lib/dragonfly/dfdaemon", ...args];
  const { status, stdout, stderr } = spawnSync(DFDAEMON, argv, { encoding: "utf8", env: { PATH: process.env["PATH"] ?? "", HOME: parent } });
  return { code: status, stdout, stderr };
}

test("a dry run is a diff; then it is done, done already, and undone", () => {
  const dry = setup("--dry-run");
  assert.equal(dry.code, 0, dry.stderr);
  assert.equal(
    dry.stdout,
    "docker:\n  change /etc/docker/daemon.json\n  then: systemctl reload docker\n" +
      '\n--- a/etc/docker/daemon.json\n+++ b/etc/docker/daemon.json\n@@ -1,3 +1,6 @@\n {\n-  "debug": true\n+  "debug": true,\n' +
      '+  "registry-mirrors": [\n+    "http://127.0.0.1:65001"\n+  ]\n }\n',
  );
  assert.equal(setup().stdout, "docker:\n  changed /etc/docker/daemon.json\n  then: systemctl reload docker\n");
  assert.equal(setup().stdout, "docker: nothing to do\n");
  const undone = setup("--undo", "--json");
  assert.deepEqual(JSON.parse(undone.stdout), {
    dryRun: false,
    engines: ["containerd", "docker", "cri-o", "podman"].map((engine) => ({
      engine,
      changes: engine === "docker" ? [{ path: "/etc/docker/daemon.json", action: "restore" }] : [],
      commands: engine === "docker" ? ["systemctl reload docker"] : [],
      notes: [],
      problems: [],
    })),
  });
  assert.equal(readFileSync(join(root, "etc/docker/daemon.json"), "utf8"), '{\n  "debug": true\n}\n');
});

test("what an undo cannot put back, and what cannot be set up, is exit code 1", () => {
  setup();
  writeFileSync(join(root, "etc/docker/daemon.json"), "{}");
  const undone = setup("--undo");
  assert.equal(undone.code, 1);
  assert.match(undone.stdout, /^ {2}problem: \/etc\/docker\/daemon\.json was changed since setup wrote it and stays as it is; what it was before is in \/var\//m);
  writeFileSync(join(root, "etc/docker/daemon.json"), "{ broken");
  assert.equal(setup().code, 1);
});

test("nonsense is refused before anything is written", () => {
  for (const [args, message] of [
    [["--engine", "rkt"], /\[USAGE\] --engine: "rkt" is none of containerd, docker, cri-o, podman/],
    [["--registry", "https://reg.test/x"], /\[USAGE\] --registry: "https:\/\/reg\.test\/x" is no registry/],
    [["--registry", "reg.test=http://10.0.0.5:5000"], /\[USAGE\] --registry: give "reg\.test" alone; its address is dfdaemon's to know: registries in its file, or --registry HOST=URL at its start/],
    [["--listen", "127.0.0.1:0"], /\[CONFIG_INVALID\] listen has port 0/],
    [["--peer-listen", "0.0.0.0:1"], /\[USAGE\] unknown option '--peer-listen'/],
  ] as const) {
    const refused = setup(...args);
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, message);
  }
  rmSync(join(root, "etc"), { recursive: true });
  assert.match(setup().stderr, /\[USAGE\] no container engine is installed under .*: name one with --engine/);
});

test("without the right to write it says so, and how to get it", { skip: process.getuid?.() !== 0 && "root only" }, () => {
  for (const path of [parent, root]) chmodSync(path, 0o755);
  const argv = ["setup", "--root", root, "--data-dir", "/var/lib/dragonfly/dfdaemon"];
  const env = { PATH: process.env["PATH"] ?? "", HOME: parent };
  const refused = spawnSync(DFDAEMON, argv, { encoding: "utf8", env, uid: 1234, gid: 1234 });
  assert.equal(refused.status, 3, refused.stderr);
  assert.match(refused.stderr, /\[OUTPUT_UNWRITABLE\] cannot write \/etc\/docker\/daemon\.json: permission denied; run it as root/);
});
