import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

const MODULE = JSON.stringify(join(import.meta.dirname, "service-log.ts"));

test("lines come whole and in order, those of a process that exits at once, too", (t) => {
  const directory = mkdtempSync(join(tmpdir(), "log-"));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, "log");
  const life = `import { serviceLog } from ${MODULE}; const log = serviceLog("info");
    for (let i = 0; i < 1000; i++) log.info({ i }, "x");
    setTimeout(() => { for (let i = 1000; i < 1010; i++) log.info({ i }, "x"); process.exit(3); }, 200);`;
  const { status } = spawnSync(process.execPath, ["--input-type=module-typescript", "-e", life], { stdio: ["ignore", openSync(file, "w"), "inherit"] });
  assert.equal(status, 3);
  const lines = readFileSync(file, "utf8").trimEnd().split("\n").map((line) => (JSON.parse(line) as { i: number }).i);
  // What is being written when a process exits is the kernel's: all of these, in either order.
  assert.deepEqual(lines.slice(0, 1000), Array.from({ length: 1000 }, (_, i) => i));
  assert.deepEqual(lines.slice(1000).toSorted((a, b) => a - b), Array.from({ length: 10 }, (_, i) => 1000 + i));
});

test("a log whose disk is full loses lines, and the process goes on and exits", () => {
  const life = `import { serviceLog } from ${MODULE}; const log = serviceLog("info");
    log.info("a"); setTimeout(() => log.info("b"), 50); setTimeout(() => { log.info("c"); process.exit(7); }, 100);`;
  const { status, stderr } = spawnSync(process.execPath, ["--input-type=module-typescript", "-e", life], {
    stdio: ["ignore", openSync("/dev/full", "w"), "pipe"],
    timeout: 20_000,
    encoding: "utf8",
  });
  assert.equal(status, 7, stderr);
});

test("a line of which only a part found room takes none of those with it that find room later", (t) => {
  const directory = mkdtempSync(join(tmpdir(), "log-"));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, "log");
  // A limit in place of a disk that is full; what is cut off makes room for one short line.
  const life = `import { statSync, truncateSync } from "node:fs"; import { LogOutput } from ${MODULE};
    const file = ${JSON.stringify(file)}; const log = new LogOutput(1);
    for (let i = 0; i < 1000; i++) log.write("x".repeat(500) + "\\n");
    setTimeout(() => { truncateSync(file, statSync(file).size - 20); log.write("short\\n"); }, 200);`;
  spawnSync("sh", ["-c", 'ulimit -f 8; exec "$0" "$@"', process.execPath, "--input-type=module-typescript", "-e", life], { stdio: ["ignore", openSync(file, "a"), "inherit"] });
  const text = readFileSync(file, "utf8");
  assert.match(text, /^(x{500}\n)+x{1,499}\nshort\n$/);
});

test("whoever reads the log and stands still does not keep the process from its end", async () => {
  for (const [end, expected] of [["setTimeout(() => process.exit(7), 100)", 7], ["", 0]] as const) {
    const life = `import { serviceLog } from ${MODULE}; const log = serviceLog("info");
      for (let i = 0; i < 3000; i++) log.info({ pad: "x".repeat(100) }, "x"); ${end};`;
    const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", life], { stdio: ["ignore", "pipe", "inherit"] });
    child.stdout.pause();
    const patience = setTimeout(() => child.kill("SIGKILL"), 20_000);
    assert.equal(await new Promise((resolve) => child.once("exit", resolve)), expected, end);
    clearTimeout(patience);
    child.stdout.destroy();
  }
});
