import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { errorCode, eventually, fetchAnswer, openLab, sha256 } from "./lab.test.ts";

void test("tags, referrers and the catalogue come from the upstream, with the query and the caller's credentials", async (t) => {
  const lab = await openLab(t);
  lab.registry.intercept = (request, response) => {
    const type = { "content-type": "application/vnd.oci.image.index.v1+json", "oci-filters-applied": "artifactType", "set-cookie": "a=b" };
    response.writeHead(200, type).end(JSON.stringify({ asked: request.url }));
    return true;
  };
  const digest = sha256("x");
  const headers = { authorization: "Bearer t", accept: "a/b", cookie: "c=d" };
  const cases: readonly (readonly [string, string])[] = [
    ["/v2/team/app/tags/list?n=2&last=a", "/v2/team/app/tags/list?n=2&last=a"],
    [`/v2/team/app/referrers/${digest}?artifactType=a%2Fb`, `/v2/team/app/referrers/${digest}?artifactType=a%2Fb`],
    ["/v2/_catalog", "/v2/_catalog"],
  ];
  for (const [path, asked] of cases) {
    const answer = await lab.ask(path, { headers });
    assert.equal(answer.status, 200);
    assert.deepEqual(JSON.parse(answer.body.toString()), { asked });
    assert.equal(answer.headers["content-type"], "application/vnd.oci.image.index.v1+json");
    assert.equal(answer.headers["oci-filters-applied"], "artifactType");
    assert.equal(answer.headers["set-cookie"], undefined);
  }
  for (const request of lab.registry.requests) {
    assert.equal(request.headers.authorization, "Bearer t");
    assert.equal(request.headers.accept, "a/b");
    assert.equal(request.headers.cookie, undefined);
    assert.equal(request.headers["accept-encoding"], "identity");
  }
});

void test("an upstream's refusal is relayed as it is: 404 of referrers, 401 with its challenge", async (t) => {
  const lab = await openLab(t);
  const path = `/v2/team/app/referrers/${sha256("x")}`;
  assert.equal((await lab.ask(path)).status, 404);
  lab.registry.mayRead = () => false;
  const refused = await lab.ask(path);
  assert.equal(refused.status, 401);
  assert.equal(refused.headers["www-authenticate"], lab.registry.challenge);
});

void test("links to further pages lead back to the mirror in the form the client used, and never elsewhere", async (t) => {
  const lab = await openLab(t);
  lab.registry.intercept = (_request, response) => {
    response.writeHead(200, { link: '</v2/team/app/tags/list?last=b&n=2>; rel="next", <https://evil.test/v2/x>; rel="alt"' }).end("{}");
    return true;
  };
  const link = async (path: string): Promise<unknown> => (await fetchAnswer(lab.port, path)).headers["link"];
  assert.equal(await link("/v2/team/app/tags/list?ns=reg.test"), '</v2/team/app/tags/list?last=b&n=2&ns=reg.test>; rel="next"');
  assert.equal(await link("/v2/reg.test/team/app/tags/list"), '</v2/reg.test/team/app/tags/list?last=b&n=2>; rel="next"');
  assert.equal(await link("/v2/team/app/tags/list"), '</v2/team/app/tags/list?last=b&n=2>; rel="next"');
});

void test("a redirect is followed here, without the caller's credentials, and a challenge behind it is not believed", async (t) => {
  const lab = await openLab(t);
  const seen: (string | undefined)[] = [];
  const elsewhere = createServer((request, response) => {
    seen.push(request.headers.authorization);
    response.writeHead(401, { "www-authenticate": 'Basic realm="phish"' }).end();
  });
  await new Promise<void>((resolve) => elsewhere.listen(0, "127.0.0.1", resolve));
  t.after(() => elsewhere.close().closeAllConnections());
  lab.registry.intercept = (_request, response) => {
    response.writeHead(307, { location: `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}/tags` }).end();
    return true;
  };
  const answer = await lab.ask("/v2/team/app/tags/list", { headers: { authorization: "Bearer t" } });
  assert.equal(answer.status, 401);
  assert.equal(answer.headers["www-authenticate"], undefined);
  assert.equal(answer.headers.location, undefined);
  assert.deepEqual(seen, [undefined]);
});

void test("an upstream that cannot be reached, or that codes its answer, is a 502; one that breaks off is cut", async (t) => {
  const lab = await openLab(t);
  const path = "/v2/team/app/tags/list";
  lab.registry.intercept = (_request, response) => {
    response.writeHead(200, { "content-encoding": "gzip" }).end("x");
    return true;
  };
  assert.equal((await lab.ask(path)).status, 502);
  lab.registry.intercept = (_request, response) => {
    response.writeHead(200, { "content-length": "1000" }).write("some", () => setTimeout(() => response.destroy(), 20));
    return true;
  };
  await assert.rejects(lab.ask(path), { code: "ECONNRESET" });
  lab.registry.down = true;
  const answer = await lab.ask(path);
  assert.equal(answer.status, 502);
  assert.equal(errorCode(answer), "UNAVAILABLE");
  await eventually(() => lab.lines.length === 3, "three lines of log");
  assert.deepEqual(lab.lines.map((line) => line["result"]), ["error", "error", "error"]);
});

void test("an answer that is not relayed is hung up on, however long it is", { timeout: 10_000 }, async (t) => {
  const lab = await openLab(t);
  for (const [status, headers] of [[429, {}], [200, { "content-encoding": "gzip" }]] as const) {
    const gone = Promise.withResolvers<void>();
    lab.registry.intercept = (_request, response) => {
      response.once("close", gone.resolve).writeHead(status, headers).write(Buffer.alloc(1 << 20));
      return true;
    };
    // oxlint-disable-next-line no-await-in-loop -- one answer after the other
    assert.notEqual((await lab.ask("/v2/team/app/tags/list")).status, 200);
    // oxlint-disable-next-line no-await-in-loop -- one answer after the other
    await gone.promise;
  }
});

void test("HEAD is relayed as HEAD", async (t) => {
  const lab = await openLab(t);
  lab.registry.files.set("/v2/team/app/tags/list", { bytes: Buffer.from('{"tags":[]}'), contentType: "application/json" });
  const answer = await lab.ask("/v2/team/app/tags/list", { method: "HEAD" });
  assert.equal(answer.status, 200);
  assert.equal(answer.headers["content-length"], "11");
  assert.equal(lab.registry.requests[0]?.method, "HEAD");
});
