import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { type Baseline, differences, figuresOf, SCENARIOS } from "./performance.ts";
import { simulate } from "./simulation.ts";

const baseline = JSON.parse(readFileSync(new URL("baseline.json", import.meta.url), "utf8")) as Baseline;

for (const { name, options, big } of SCENARIOS) {
  if (big) continue;
  test(`performance of ${name} is what baseline.json says`, () => {
    const moved = differences(baseline[name], figuresOf(simulate(options)));
    if (moved.length > 0) assert.fail(`it moved; if that is as meant: node sim/main.ts --perf ${name} --update\n${moved.join("\n")}`);
  });
}

test("the baseline holds no scenario that is no more", () => {
  const names = new Set(SCENARIOS.map(({ name }) => name));
  assert.deepEqual(Object.keys(baseline).filter((name) => !names.has(name)), []);
});
