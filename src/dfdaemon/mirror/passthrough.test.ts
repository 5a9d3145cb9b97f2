/** The mirror's own questions count against the site's budget for the registry's host, whatever kind they are. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { AppError } from "../../base/errors.ts";
import type { Caller } from "./caller.ts";
import { HttpUpstreamAsker } from "./passthrough.ts";
import type { Upstream } from "./registries.ts";

const signal = new AbortController().signal;

test("each question asks the budget first, and is not asked without its word", async (t) => {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    response.writeHead(200, { "content-length": 2 }).end(request.method === "HEAD" ? undefined : "{}");
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const asker = new HttpUpstreamAsker({ userAgent: "test" });
  t.after(async () => {
    await asker.close();
    server.close();
  });
  const upstream = { baseUrl, access: "passthrough" } as Upstream;
  const caller: Caller = { authorization: undefined, scope: "" };
  const url = `${baseUrl}/v2/a/manifests/b`;
  const questions = [
    () => asker.stat(upstream, url, "*/*", caller, signal),
    () => asker.ping(upstream, caller, signal),
    async () => {
      const { body } = await asker.relay(upstream, { method: "GET", url, accept: "*/*", caller }, signal);
      assert.equal(await text(body), "{}");
    },
  ];
  const paid: string[] = [];
  let isExhausted = false;
  asker.countAgainst({
    request: (of) => {
      if (isExhausted) return Promise.reject(new AppError("ABORTED", "the budget is used up"));
      assert.equal(asked.length, paid.length, "paid before it is asked");
      paid.push(of);
      return Promise.resolve();
    },
    reading: () => undefined,
  });
  for (const question of questions) await question();
  assert.deepEqual(paid, [url, `${baseUrl}/v2/`, url]);
  assert.deepEqual(asked, ["HEAD /v2/a/manifests/b", "GET /v2/", "GET /v2/a/manifests/b"]);
  isExhausted = true;
  for (const question of questions) await assert.rejects(question(), { code: "ABORTED" });
  assert.equal(asked.length, 3);
});
