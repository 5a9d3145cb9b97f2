import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { Options } from "./options.ts";
import { append } from "./report.ts";

test("a row that is filed says first when and of which tree it is, and on which machine it ran", (t) => {
  const directory = mkdtempSync(join(tmpdir(), "dragonfly-report-"));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, "rows.jsonl");
  const machine = { cpu: "a processor", congestion: "cubic" };
  append(file, { system: "curl", run: 1, outcome: { error: "none" } }, { hosts: 16 } as Options, { date: "2026-01-01T00:00:00.000Z", tree: "1234567+", machine });
  const row = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
  assert.deepEqual(Object.keys(row).slice(0, 4), ["date", "tree", "command", "machine"]);
  assert.ok(Date.now() - Date.parse(row["date"] as string) < 60_000, "the row's own date, not the lab's");
  assert.equal(row["tree"], "1234567+");
  assert.deepEqual(row["machine"], machine);
});
