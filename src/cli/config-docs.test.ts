import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { configDocs } from "./config-docs.ts";
import { resolveConfig } from "./config.ts";
import { DFDAEMON, DFGET, SUPERNODE, type Program, type Settings } from "./config-schema.ts";

test("docs/config.md is what the tables say", () => {
  const written = readFileSync(new URL("../../docs/config.md", import.meta.url), "utf8");
  assert.equal(written, configDocs(), "run: node src/cli/print-config-docs.ts");
});

test("the files in the docs are configurations, their comments included", () => {
  const directory = mkdtempSync(join(tmpdir(), "config-docs-"));
  const blocks = [...configDocs().matchAll(/```yaml\n([^]*?)```/g)].map((match) => match[1] ?? "");
  const programs: readonly Program<Settings>[] = [SUPERNODE, DFDAEMON, DFGET];
  for (const [index, program] of programs.entries()) {
    const file = join(directory, `${program.name}.yaml`);
    for (const text of [blocks[index] ?? "", (blocks[index] ?? "").replaceAll(/^# /gm, "")]) {
      writeFileSync(file, text);
      resolveConfig(program, { flags: {}, file }, { env: {}, isRoot: true, home: "/root", canWrite: () => true });
    }
  }
  rmSync(directory, { recursive: true });
});
