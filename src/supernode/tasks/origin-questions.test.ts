import assert from "node:assert/strict";
import { test } from "node:test";
import { collectGarbage } from "../../base/garbage-fixture.test.ts";
import { AppError } from "../../base/errors.ts";
import type { OriginInfo } from "../../origin/origin.ts";
import { OriginQuestions } from "./origin-questions.ts";

test("what failed is forgotten like what did not, though nothing else is asked meanwhile", async () => {
  const clock = { nowMs: 0 };
  const questions = new OriginQuestions({ origin: { stat: () => Promise.reject(new AppError("ORIGIN_NOT_FOUND", "no")) }, nowMs: () => clock.nowMs, random: () => 0 });
  const errors: WeakRef<AppError>[] = [];
  for (let n = 0; n < 3_000; n++) {
    clock.nowMs += 100;
    const question = { key: `question ${n}`, source: { url: `http://h/${n}`, headers: {} }, known: () => Promise.resolve(undefined), quick: false, rememberMs: 1000 };
    await questions.ask(question).catch((error: unknown) => errors.push(new WeakRef(error as AppError)));
  }
  await new Promise(setImmediate);
  collectGarbage();
  const held = errors.filter((error) => error.deref() !== undefined).length;
  questions.close();
  assert.ok(held < 500, `${held} of ${errors.length} failures of up to five minutes ago are still held`);
});

test("of more answers than there is room for the oldest are forgotten, of questions that are out none", async () => {
  const asked: string[] = [];
  const out = Promise.withResolvers<OriginInfo>();
  const info: OriginInfo = { lengthBytes: 1, ranges: true, etag: undefined, lastModified: undefined, contentType: undefined, headers: {} };
  const stat = ({ url }: { url: string }): Promise<OriginInfo> => {
    asked.push(url);
    return url === "out" ? out.promise : Promise.resolve(info);
  };
  const questions = new OriginQuestions({ origin: { stat }, nowMs: () => 0, random: () => 0 });
  const ask = (url: string): Promise<unknown> => questions.ask({ key: url, source: { url, headers: {} }, known: () => Promise.resolve(undefined), quick: false, rememberMs: 300_000 });
  const waiting = ask("out");
  await Promise.all(Array.from({ length: 50_010 }, (_, n) => ask(String(n))));
  asked.length = 0;
  const again = ask("out");
  await Promise.all([ask("50009"), ask("0")]);
  assert.deepEqual(asked, ["0"]);
  out.resolve(info);
  await Promise.all([waiting, again]);
  questions.close();
});
