import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../base/errors.ts";
import type { Source } from "../protocol/control-messages.ts";
import type { TaskId } from "../protocol/ids.ts";
import { InvitedTasks } from "./invited-tasks.ts";
import type { KeptTask } from "./kept-tasks.ts";
import type { PeerLog } from "./peer.ts";

const idOf = (number: number): TaskId => number.toString(16).padStart(64, "0") as TaskId;

/** A task as far as it matters here; `news` resolves what is waited for. */
function keptTask() {
  const stored = { complete: false, have: { count: 0 } };
  const session = { failure: undefined as AppError | undefined, changed: () => new Promise<void>((resolve) => (news.wake = resolve)) };
  const news = { wake: (): void => {} };
  return { kept: { task: { stored, session }, isWorthless: false } as unknown as KeptTask, stored, session, news };
}

function host() {
  const log: string[] = [];
  const left: KeptTask[] = [];
  const held: { readonly taskId: TaskId; readonly source: Source; readonly resolve: (kept: KeptTask) => void; readonly reject: (error: AppError) => void }[] = [];
  const here = new Set<TaskId>();
  const ending = new AbortController();
  const tasks = new InvitedTasks({
    announce: (taskId) => here.has(taskId),
    hold: (taskId, source) => new Promise((resolve, reject) => held.push({ taskId, source, resolve, reject })),
    leave: (kept) => left.push(kept),
    log: { info: (_fields: object, message: string) => log.push(message) } as unknown as PeerLog,
    signal: ending.signal,
  });
  return { tasks, held, left, log, here };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("what a keeper is invited to it holds until it has all, and asks nothing of its origin", async () => {
  const { tasks, held, left } = host();
  tasks.invited(idOf(1), "http://o/f");
  tasks.invited(idOf(1), "http://o/f");
  assert.deepEqual(held.map(({ source }) => source), [{ url: "http://o/f", headers: {}, priority: "normal", invited: true }]);
  const { kept, stored, news } = keptTask();
  held[0]?.resolve(kept);
  await turn();
  stored.have.count = 3;
  news.wake();
  await turn();
  assert.deepEqual(left, []);
  stored.complete = true;
  news.wake();
  await turn();
  assert.deepEqual(left, [kept]);
  tasks.invited(idOf(1), "http://o/f");
  assert.equal(held.length, 2, "evicted meanwhile: it is taken again");
});

test("it lets go of what fails, and of what nothing more comes of", async () => {
  for (const end of [({ session }: ReturnType<typeof keptTask>) => (session.failure = new AppError("ORIGIN_CUT", "cut")), () => undefined]) {
    const { tasks, held, left } = host();
    const task = keptTask();
    tasks.invited(idOf(1), "u");
    held[0]?.resolve(task.kept);
    // oxlint-disable-next-line no-await-in-loop -- cases
    await turn();
    end(task);
    task.news.wake();
    // oxlint-disable-next-line no-await-in-loop -- cases
    await turn();
    assert.deepEqual(left, [task.kept]);
  }
});

test("no room is no harm, what is open here is only announced, and so many are taken at a time", async () => {
  const { tasks, held, log, here } = host();
  tasks.invited(idOf(1), "u");
  held[0]?.reject(new AppError("CACHE_QUOTA_EXCEEDED", "the quota is full"));
  await turn();
  assert.deepEqual(log, ["a task is not kept here: the quota is full"]);
  here.add(idOf(2));
  tasks.invited(idOf(2), "u");
  assert.equal(held.length, 1);
  for (let number = 3; number < 200; number++) tasks.invited(idOf(number), "u");
  assert.equal(held.length, 1 + 64);
});
