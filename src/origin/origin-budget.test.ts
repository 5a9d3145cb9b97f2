import assert from "node:assert/strict";
import { test } from "node:test";
import type { Origin, OriginInfo } from "./origin.ts";
import { BudgetedOrigin } from "./origin-budget.ts";

test("a question about a known version waits for the budget, and is still about that version", async () => {
  const events: unknown[] = [];
  const known = { lengthBytes: 5 } as OriginInfo;
  const inner = {
    stat: (_request, _signal, asked) => {
      events.push(asked);
      return Promise.resolve(known);
    },
  } as Origin;
  const budget = {
    request: (url: string) => {
      events.push(url);
      return Promise.resolve();
    },
    reading: () => undefined,
  };
  const request = { url: "http://origin/file", headers: {} };
  await new BudgetedOrigin(inner, budget).stat(request, new AbortController().signal, known);
  assert.deepEqual(events, [request.url, known]);
});
