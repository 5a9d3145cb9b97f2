import assert from "node:assert/strict";
import { test } from "node:test";
import { type Figures, resultOf } from "./report.ts";

const MACHINE = { cpu: "a processor" };
const OLD = { date: "2026-01-01T00:00:00.000Z", tree: "0000001", machine: MACHINE };
const NEW = { date: "2026-01-02T00:00:00.000Z", tree: "0000002+", machine: MACHINE };

function figures(gbPerSecond: number): Figures {
  return { gbPerSecond, serverCpuPerGb: 1, cpuPerGb: 1 };
}

test("rows of other parts are kept, each with the tree that it was measured of", () => {
  const first = resultOf(OLD, 1, { serve: [figures(1)], receive: [figures(2)] });
  const second = resultOf(NEW, 1, { receive: [figures(3)] }, first);
  assert.deepEqual(Object.keys(second).slice(0, 3), ["date", "tree", "machine"]);
  assert.equal(second.tree, "0000002+");
  assert.deepEqual(second.all, { serve: [figures(1)], receive: [figures(3)] });
  assert.deepEqual(second.measured, { serve: { date: OLD.date, tree: OLD.tree }, receive: { date: NEW.date, tree: NEW.tree } });
  assert.deepEqual(resultOf(NEW, 1, {}, second).measured, second.measured);
});

test("a kept row whose file said neither date nor tree is not said to be of this run's", () => {
  const { measured } = resultOf(NEW, 1, {}, { all: { serve: [figures(1)] } });
  assert.deepEqual(measured, { serve: { date: undefined, tree: undefined } });
});
