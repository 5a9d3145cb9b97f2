import assert from "node:assert/strict";
import { test } from "node:test";
import type { TaskId } from "../protocol/ids.ts";
import { EarlyWords } from "./early-words.ts";

const [A, B] = ["a", "b"].map((digit) => digit.repeat(64)) as [TaskId, TaskId];

test("what is said between a join's answer and the opening is heard then, in order, and once", () => {
  const early = new EarlyWords<string[]>();
  const say = (taskId: TaskId, word: string): void => early.keep(taskId, (heard) => heard.push(word));
  say(A, "before any join");
  early.joined(A);
  say(A, "of the join before");
  early.joined(A);
  early.joined(B);
  say(A, "first");
  say(B, "of another task");
  say(A, "second");
  const heard: string[] = [];
  early.opened(A, heard);
  early.opened(A, heard);
  say(A, "too late to be early");
  early.opened(A, heard);
  assert.deepEqual(heard, ["first", "second"]);
});

test("bounded: the task joined longest ago is forgotten first, and of one task only so much is kept", () => {
  const early = new EarlyWords<string[]>();
  early.joined(A);
  early.keep(A, (heard) => heard.push("forgotten"));
  for (let n = 0; n < 1_000; n++) early.joined(n.toString(16).padStart(64, "0") as TaskId);
  early.joined(B);
  for (let n = 0; n < 100; n++) early.keep(B, (heard) => heard.push(String(n)));
  const heard: string[] = [];
  early.opened(A, heard);
  assert.deepEqual(heard, []);
  early.opened(B, heard);
  assert.deepEqual([heard.length, heard[0]], [64, "0"]);
});
