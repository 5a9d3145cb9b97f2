import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

const REPOSITORY = join(import.meta.dirname, "..");
/** A program that may write no file and start no other has nothing to clean up after. */
const STARTS_NOTHING = ["--permission", "--allow-fs-read=*"];

/** Programs are those that are called so, and those that say how they are run. */
const programs = globSync("bench/*/*.ts", { cwd: REPOSITORY }).filter((file) => file.endsWith("/main.ts") || headOf(file).includes(commandOf(file))).toSorted();

function headOf(file: string): string {
  return /^\/\*\*.*?\*\//s.exec(readFileSync(join(REPOSITORY, file), "utf8"))?.[0] ?? "";
}

function commandOf(file: string): string {
  return file === "bench/demo/main.ts" ? "npm run demo" : `node ${file}`;
}

async function run(file: string, option: string): Promise<{ readonly code: unknown; readonly stdout: string; readonly stderr: string }> {
  return await new Promise((resolve) => {
    execFile(process.execPath, [...STARTS_NOTHING, file, option], { cwd: REPOSITORY }, (error, stdout, stderr) => resolve({ code: error?.code ?? 0, stdout, stderr }));
  });
}

test("there are programs to ask", () => {
  for (const file of ["bench/control/messages.ts", "bench/lab/main.ts", "bench/origin/streams.ts"]) assert.ok(programs.includes(file), file);
});

for (const file of programs) {
  test(`${file} tells its usage before it starts anything`, async () => {
    const [asked, mistaken] = await Promise.all([run(file, "--help"), run(file, "--no-such-option")]);
    assert.equal(asked.stderr, "");
    assert.equal(asked.code, 0);
    assert.ok(asked.stdout.includes(commandOf(file)), asked.stdout);
    assert.equal(mistaken.stderr, `Unknown option '--no-such-option'\n\n${asked.stdout}`);
    assert.equal(mistaken.stdout, "");
    assert.equal(mistaken.code, 2);
  });
}

test("a value that cannot be meant is refused as an unknown option is", async () => {
  const { code, stderr } = await run("bench/lab/main.ts", "--hosts=0");
  assert.equal(code, 2);
  assert.ok(stderr.startsWith("--hosts 0: expected a whole number from 1 to 200\n\nThe lab: "), stderr);
});
