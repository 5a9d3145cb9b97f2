/** The house's rules are held by oxlint and tsc: each fence is shown to stand by a file that breaks it. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";

const ROOT = join(import.meta.dirname, "../..");
const house = mkdtempSync(join(tmpdir(), "dragonfly-fences-"));
after(() => rmSync(house, { recursive: true, force: true }));

const PROJECTS = ["src", "src/base", "src/protocol", "src/scheduler", "src/swarm", "sim"];
for (const file of [".oxlintrc.json", "package.json", "tsconfig.base.json", ...PROJECTS.map((folder) => `${folder}/tsconfig.json`)]) {
  mkdirSync(dirname(join(house, file)), { recursive: true });
  cpSync(join(ROOT, file), join(house, file));
}
symlinkSync(join(ROOT, "node_modules"), join(house, "node_modules"));

function write(file: string, text: string): void {
  mkdirSync(dirname(join(house, file)), { recursive: true });
  writeFileSync(join(house, file), text);
}

// What the files below import.
const FOLDERS = ["base", "protocol", "scheduler", "swarm", "origin", "engines", "peer", "supernode", "dfdaemon", "cli"];
for (const folder of FOLDERS) for (const name of ["index", "inner"]) write(`src/${folder}/${name}.ts`, "export const x = 1;\n");

interface Case {
  readonly file: string;
  readonly text: string;
  /** The rule that refuses it; undefined: it is lawful. */
  readonly rule: string | undefined;
}

const cases: Case[] = [];

function add(folder: string, text: string, rule: string | undefined, suffix = ".ts"): void {
  cases.push({ file: `${folder}/case-${cases.length}${suffix}`, text, rule });
}

function imports(folder: string, specifiers: readonly string[], rule: string | undefined, suffix = ".ts"): void {
  for (const specifier of specifiers) add(folder, `import * as it from "${specifier}";\nexport const y = it;\n`, rule, suffix);
}

const IMPORTS = "eslint(no-restricted-imports)";
const GLOBALS = "eslint(no-restricted-globals)";
const PROPERTIES = "eslint(no-restricted-properties)";
const inner = (...folders: readonly string[]): readonly string[] => folders.map((folder) => `../${folder}/inner.ts`);
const index = (...folders: readonly string[]): readonly string[] => folders.map((folder) => `../${folder}/index.ts`);

// Who may import whom, both ways.
imports("src/base", ["./inner.ts"], undefined);
imports("src/base", ["node:fs", "zod", "pino", ...inner("protocol", "swarm", "peer")], IMPORTS);
imports("src/protocol", ["./inner.ts", "zod", ...inner("base")], undefined);
imports("src/protocol", ["node:fs", "pino", ...inner("scheduler", "swarm", "peer"), ...index("swarm")], IMPORTS);
for (const brain of ["scheduler", "swarm"]) {
  imports(`src/${brain}`, ["./inner.ts", ...inner("base", "protocol")], undefined);
  imports(`src/${brain}`, ["node:fs", "zod", "pino", ...inner("peer", "supernode")], IMPORTS);
  imports(`src/${brain}`, ["node:test", "fast-check", ...inner("protocol")], undefined, ".test.ts");
  imports(`src/${brain}`, inner("peer"), IMPORTS, ".test.ts");
}
imports("src/scheduler", index("swarm"), IMPORTS);
imports("src/swarm", index("scheduler"), IMPORTS);
imports("src/origin", ["node:fs", "undici", ...inner("base", "protocol")], undefined);
imports("src/origin", inner("peer", "swarm", "supernode", "dfdaemon", "cli"), IMPORTS);
imports("src/engines", ["node:fs", "zod", ...inner("base", "protocol")], undefined);
imports("src/engines", inner("origin", "peer", "swarm", "supernode", "dfdaemon", "cli"), IMPORTS);
imports("src/peer", ["node:fs", "pino", ...inner("base", "protocol", "origin"), ...index("swarm")], undefined);
imports("src/peer", [...inner("swarm", "scheduler", "supernode", "dfdaemon", "cli"), ...index("scheduler")], IMPORTS);
imports("src/supernode", [...inner("base", "protocol", "origin", "peer"), ...index("scheduler", "swarm")], undefined);
imports("src/supernode", inner("scheduler", "swarm", "dfdaemon", "cli"), IMPORTS);
imports("src/dfdaemon", [...inner("base", "protocol", "origin", "peer"), ...index("swarm")], undefined);
imports("src/dfdaemon", [...inner("swarm", "supernode", "cli"), ...index("scheduler")], IMPORTS);
// An owner's sub-folder has the owner's rights, and enters its siblings freely.
const outside = (specifiers: readonly string[]): readonly string[] => specifiers.map((specifier) => `../${specifier}`);
imports("src/peer/store", ["../inner.ts", "node:fs", ...outside([...inner("base", "protocol", "origin"), ...index("swarm")])], undefined);
imports("src/peer/store", outside([...inner("swarm", "scheduler", "supernode", "dfdaemon", "cli"), ...index("scheduler")]), IMPORTS);
imports("src/supernode/cache", ["../inner.ts", ...outside([...inner("base", "origin", "peer"), ...index("scheduler", "swarm")])], undefined);
imports("src/supernode/cache", outside(inner("scheduler", "swarm", "dfdaemon", "cli")), IMPORTS);
imports("src/dfdaemon/mirror", ["../inner.ts", ...outside([...inner("base", "origin", "peer"), ...index("swarm")])], undefined);
imports("src/dfdaemon/mirror", outside([...inner("swarm", "supernode", "cli"), ...index("scheduler")]), IMPORTS);
imports("src/cli", inner("base", "engines", "peer", "supernode", "dfdaemon"), undefined);
imports("src/cli", ["../../sim/main.ts", ...inner("scheduler", "swarm")], IMPORTS);
imports("src/cli/setup", ["../inner.ts", ...outside([...inner("base", "engines", "dfdaemon"), ...index("swarm")])], undefined);
imports("src/cli/setup", ["../../../sim/main.ts", ...outside(inner("scheduler", "swarm"))], IMPORTS);
imports("sim", ["../src/base/inner.ts", "../src/protocol/inner.ts", "../src/swarm/index.ts", "../src/scheduler/index.ts"], undefined);
imports("sim", ["node:fs", "pino", "../src/swarm/inner.ts", "../src/peer/inner.ts", "../src/supernode/inner.ts"], IMPORTS);

// What a pure folder may know.
for (const folder of ["base", "protocol", "scheduler", "swarm"]) {
  add(`src/${folder}`, "export const y = Math.floor(1.5);\n", undefined);
  for (const name of ["Date", "performance", "setTimeout", "process", "Buffer", "globalThis"]) {
    add(`src/${folder}`, `export const y = () => ${name};\n`, GLOBALS);
  }
  add(`src/${folder}`, "export const y = () => Math.random();\n", PROPERTIES);
  add(`src/${folder}`, "export const y = () => Date.now();\n", GLOBALS, ".test.ts");
}
add("sim", "export const y = () => Math.random();\n", PROPERTIES);
add("sim", "export const y = () => Date.now();\n", GLOBALS);

// What holds everywhere.
add("src/peer", "export const y: any = 1;\n", "typescript(no-explicit-any)");
add("src/peer", "export function y(): void {\n  Promise.resolve(1);\n}\n", "typescript(no-floating-promises)");
add("src/peer", 'import { test } from "node:test";\ntest("a test may stand alone", async () => Promise.resolve());\n', undefined);
add("src/peer", `export { y as z } from "./case-${cases.length + 1}.ts";\nexport const y = 1;\n`, "import(no-cycle)");
add("src/peer", `export { y as z } from "./case-${cases.length - 1}.ts";\nexport const y = 1;\n`, "import(no-cycle)");

test("oxlint refuses what breaks a rule of the house, and nothing else", () => {
  for (const { file, text } of cases) write(file, text);
  write("sim/main.ts", 'import { parseArgs } from "node:util";\nexport const y = parseArgs;\n');
  const { stdout } = spawnSync(join(ROOT, "node_modules/.bin/oxlint"), ["--type-aware", "--deny-warnings", "-f", "json", "src", "sim"], {
    cwd: house,
    encoding: "utf8",
    maxBuffer: 64 * 1024 * 1024,
  });
  const report = JSON.parse(stdout) as { readonly diagnostics: readonly { readonly code: string; readonly filename: string }[] };
  const found = report.diagnostics.map(({ code, filename }) => `${filename} ${code}`);
  const expected = cases.flatMap(({ file, rule }) => (rule === undefined ? [] : [`${file} ${rule}`]));
  assert.deepEqual([...new Set(found)].toSorted(), expected.toSorted());
});

/** Compiles one project in which only `text` is new. */
function compile(project: string, text: string): string {
  write(`${project}/tried.ts`, text);
  const { stdout, status } = spawnSync(join(ROOT, "node_modules/.bin/tsc"), ["-b", project], { cwd: house, encoding: "utf8" });
  rmSync(join(house, project, "tried.ts"));
  return status === 0 ? "fine" : stdout;
}

test("the compiler knows no machine in a pure folder, and no import against the direction", () => {
  for (const { file } of cases) rmSync(join(house, file), { force: true });
  const imported = (specifier: string): string => `import { x } from "${specifier}";\nexport const y: number = x;\n`;
  assert.equal(compile("src/protocol", imported("../base/inner.ts")), "fine");
  assert.equal(compile("src/swarm", imported("../protocol/inner.ts")), "fine");
  for (const [project, text] of [
    ["src/base", "export const y: unknown = process;\n"],
    ["src/protocol", "export const y: unknown = setTimeout;\n"],
    ["src/swarm", 'import "node:fs";\n'],
    ["src/scheduler", "export const y: unknown = performance;\n"],
    ["src/base", imported("../protocol/inner.ts")],
    ["src/protocol", imported("../swarm/inner.ts")],
    ["src/swarm", imported("../scheduler/inner.ts")],
    ["src/scheduler", imported("../peer/inner.ts")],
  ] as const) {
    assert.match(compile(project, text), /error TS(?:2304|2307|2584|2591|2882|6059|6307)/, `${project}: ${text}`);
  }
});
