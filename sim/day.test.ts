import assert from "node:assert/strict";
import { test } from "node:test";
import { simulateDay } from "./day.ts";

test("twenty-four hours of daemons that come and go: files come in time, and no task, peer, link or timer piles up", (t) => {
  const { wants, rebirths, hours } = simulateDay(1, 24);
  t.diagnostic(`${wants} files wanted, ${rebirths} daemons died and came back`);
  for (const hour of [2, 12, 23]) t.diagnostic(`after ${hour + 1} h: ${JSON.stringify(hours[hour])}`);
  assert.ok(wants > 1_000 && rebirths > 40);
  const early = hours.slice(2, 8);
  const late = hours.slice(-6);
  for (const what of ["openTasks", "siteTasks", "sitePeers", "events"] as const) {
    const most = Math.max(...early.map((hour) => hour[what]));
    assert.ok(Math.min(...late.map((hour) => hour[what])) <= most * 1.5, `${what} grows: ${hours.map((hour) => hour[what]).join(" ")}`);
  }
});
