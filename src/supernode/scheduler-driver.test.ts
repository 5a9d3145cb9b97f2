import assert from "node:assert/strict";
import { test } from "node:test";
import type { PeerId, TaskId } from "../protocol/ids.ts";
import type { SchedulerEffect, SchedulerInput } from "../scheduler/index.ts";
import { SchedulerDriver } from "./scheduler-driver.ts";

const taskId = "a".repeat(64) as TaskId;
const joined = (requestId: number): SchedulerInput => ({
  type: "taskJoined",
  peerId: "p" as PeerId,
  taskId,
  requestId,
  pieceCount: 0,
  totalCount: 1,
});

/** Answers every input with two effects that carry its number, and has a deadline when told so. */
class EchoScheduler {
  readonly inputs: SchedulerInput[] = [];
  readonly times: number[] = [];
  deadlineMs: number | undefined;

  step(input: SchedulerInput, nowMs: number): readonly SchedulerEffect[] {
    this.inputs.push(input);
    this.times.push(nowMs);
    if (input.type === "deadlineReached") this.deadlineMs = undefined;
    if (input.type !== "taskJoined") return [];
    const effect = { type: "assign", peerId: input.peerId, taskId, requestId: input.requestId, neighbours: [], imports: [] } as const;
    return [effect, { type: "forgetTask", taskId }];
  }

  nextDeadlineMs(): number | undefined {
    return this.deadlineMs;
  }

  snapshot(): { peers: []; tasks: [] } {
    return { peers: [], tasks: [] };
  }
}

test("effects are done in order, and what they cause comes after them", () => {
  const scheduler = new EchoScheduler();
  const done: string[] = [];
  const driver: SchedulerDriver = new SchedulerDriver({
    scheduler,
    nowMs: () => 7.9,
    execute: (effect) => {
      done.push(effect.type === "assign" ? `assign ${effect.requestId}` : effect.type);
      if (effect.type === "assign" && effect.requestId === 1) {
        driver.push(joined(2));
        driver.push(joined(3));
      }
    },
  });
  driver.push(joined(1));
  assert.deepEqual(done, ["assign 1", "forgetTask", "assign 2", "forgetTask", "assign 3", "forgetTask"]);
  assert.deepEqual(scheduler.times, [7, 7, 7]);
  driver.close();
  driver.push(joined(4));
  assert.equal(scheduler.inputs.length, 3);
});

test("one timer, for the next deadline; an earlier one moves it", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const scheduler = new EchoScheduler();
  let nowMs = 0;
  const driver = new SchedulerDriver({ scheduler, nowMs: () => nowMs, execute: () => {} });
  const pass = (ms: number): void => {
    nowMs += ms;
    t.mock.timers.tick(ms);
  };
  const reached = (): number => scheduler.inputs.filter(({ type }) => type === "deadlineReached").length;
  scheduler.deadlineMs = 1000;
  driver.push(joined(1));
  scheduler.deadlineMs = 100;
  driver.push(joined(2));
  pass(99);
  assert.equal(reached(), 0);
  pass(2);
  assert.equal(reached(), 1);
  assert.ok((scheduler.times.at(-1) as number) >= 100);
  pass(2000);
  assert.equal(reached(), 1);
  scheduler.deadlineMs = 5000;
  driver.push(joined(3));
  driver.close();
  pass(9000);
  assert.equal(reached(), 1);
});
