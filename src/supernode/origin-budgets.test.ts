import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { OriginBudgets } from "./origin-budgets.ts";

const never = new AbortController().signal;

interface Clock {
  ms: number;
  pass(ms: number): Promise<void>;
}

function clockOf({ mock }: TestContext): Clock {
  mock.timers.enable({ apis: ["setTimeout"] });
  const clock = {
    ms: 0,
    pass: async (ms: number): Promise<void> => {
      for (let i = 0; i < ms; i++) {
        clock.ms++;
        mock.timers.tick(1);
        for (let turn = 0; turn < 12; turn++) await Promise.resolve();
      }
    },
  };
  return clock;
}

/** Counts what many askers get done, each asking again at once. */
function hammer(count: number, ask: () => Promise<number>): { done: number } {
  const tally = { done: 0 };
  for (let i = 0; i < count; i++) {
    void (async () => {
      for (;;) {
        const done = await ask();
        tally.done += done;
      }
    })();
  }
  return tally;
}

test("own requests and leased ones share a host's requests per second, however many ask", async (t) => {
  const clock = clockOf(t);
  const budgets = new OriginBudgets([{ host: "reg.example", bytesPerSecond: undefined, requestsPerSecond: 20 }], () => clock.ms);
  const own = hammer(30, async () => {
    await budgets.request("https://reg.example/v2/a/manifests/1", never);
    return 1;
  });
  const leased = hammer(30, async () => (await budgets.lease("reg.example", "requests", never)).amount as number);
  await clock.pass(10_000);
  const all = own.done + leased.done;
  assert.ok(Math.abs(all - 200) <= 10, `${all} requests in ten seconds`);
  assert.ok(own.done > 20 && leased.done > 20, `${own.done} ${leased.done}`);
});

test("readings and leased bytes share a host's bytes per second", async (t) => {
  const clock = clockOf(t);
  const budgets = new OriginBudgets([{ host: "*", bytesPerSecond: 1_000_000, requestsPerSecond: undefined }], () => clock.ms);
  const pay = budgets.reading("http://files.example/a");
  const own = hammer(1, async () => {
    await pay?.(65_536, never);
    return 65_536;
  });
  const leased = hammer(3, async () => (await budgets.lease("files.example", "bytes", never)).amount as number);
  await clock.pass(10_000);
  const total = budgets.view()[0]?.bytes.total ?? 0;
  assert.ok(Math.abs(total - 10_000_000) <= 500_000, `${total}`);
  assert.ok(own.done + leased.done <= total);
  assert.ok(own.done > 3_000_000, "the site's own reading has its share");
  const [view] = budgets.view();
  assert.equal(view?.host, "files.example");
  assert.equal(view.bytes.limitPerSecond, 1_000_000);
});

test("the first pattern that matches counts, each host has a budget of its own, and others have none", async () => {
  const budgets = new OriginBudgets([
    { host: "free.example", bytesPerSecond: undefined, requestsPerSecond: undefined },
    { host: "reg.example:5000", bytesPerSecond: 4_000_000, requestsPerSecond: undefined },
    { host: "*.example", bytesPerSecond: 2_000_000, requestsPerSecond: undefined },
  ]);
  const amountFor = async (host: string): Promise<number | null> => (await budgets.lease(host, "bytes", never)).amount;
  assert.equal(await amountFor("free.example"), null);
  assert.equal(await amountFor("elsewhere.org"), null);
  assert.equal(await amountFor("example"), null, "the pattern is for hosts below it");
  assert.equal(await amountFor("a.example:8443"), 100_000);
  assert.equal(await amountFor("b.example"), 100_000, "at once: another host's use is not its own");
  assert.equal(budgets.reading("http://elsewhere.org/x"), undefined);
  assert.notEqual(budgets.reading("http://a.example:8443/x"), undefined);
  assert.equal(await amountFor("reg.example:5000"), 200_000, "with a port the pattern is for that port");
  assert.equal(await amountFor("reg.example:5001"), 100_000);
  budgets.close();
});

test("IPv6 hosts are named as URLs have them; ports 80 and 443 are those that URLs leave out", () => {
  const isNamed = (host: string, url: string): boolean => {
    const budgets = new OriginBudgets([{ host, bytesPerSecond: 1_000_000, requestsPerSecond: undefined }]);
    const reading = budgets.reading(url);
    budgets.close();
    return reading !== undefined;
  };
  const named: Readonly<Record<string, readonly string[]>> = {
    "[2001:db8::1]": ["https://[2001:DB8::1]/x", "http://[2001:db8::1]:5000/x"],
    "[2001:db8::1]:5000": ["http://[2001:db8::1]:5000/x"],
    "reg.example:443": ["https://reg.example/x", "https://reg.example:443/x", "http://reg.example:443/x"],
    "*.example:80": ["http://reg.example/x"],
    "*": ["http://[::1]/x"],
  };
  const others: Readonly<Record<string, readonly string[]>> = {
    "[2001:db8::1]": ["http://[2001:db8::2]/x"],
    "[2001:db8::1]:5000": ["http://[2001:db8::1]/x", "http://[2001:db8::1]:5001/x"],
    "reg.example:443": ["https://reg.example:5000/x", "https://other.example/x"],
  };
  for (const [host, urls] of Object.entries(named)) for (const url of urls) assert.equal(isNamed(host, url), true, `${host} ${url}`);
  for (const [host, urls] of Object.entries(others)) for (const url of urls) assert.equal(isNamed(host, url), false, `${host} ${url}`);
});

test("new budgets hold at once, for those who wait as well; no budget lets all go", async (t) => {
  const clock = clockOf(t);
  const budgets = new OriginBudgets([{ host: "*", bytesPerSecond: undefined, requestsPerSecond: 1 }], () => clock.ms);
  const tally = hammer(5, async () => {
    await budgets.request("http://a/", never);
    await new Promise((resolve) => setTimeout(resolve, 10));
    return 1;
  });
  await clock.pass(3000);
  assert.ok(tally.done <= 4, `${tally.done}`);
  budgets.setConfigs([{ host: "a", bytesPerSecond: undefined, requestsPerSecond: 50 }]);
  assert.deepEqual(budgets.view().map(({ host, pattern, requests }) => [host, pattern, requests.limitPerSecond]), [["a", "a", 50]]);
  const before = tally.done;
  await clock.pass(2000);
  assert.ok(Math.abs(tally.done - before - 100) <= 7, `${tally.done - before}`);
  budgets.setConfigs([]);
  assert.deepEqual(budgets.view(), []);
  const then = tally.done;
  await clock.pass(1000);
  assert.ok(tally.done - then > 300, `${tally.done - then}`);
});

test("new budgets of bytes hold for readings that are under way", async (t) => {
  const clock = clockOf(t);
  const budgets = new OriginBudgets([{ host: "*", bytesPerSecond: 10_000, requestsPerSecond: undefined }], () => clock.ms);
  const pay = budgets.reading("http://a/");
  const tally = hammer(3, async () => {
    await pay?.(1_000, never);
    return 1_000;
  });
  await clock.pass(2_000);
  assert.ok(tally.done <= 25_000, `${tally.done}`);
  budgets.setConfigs([{ host: "*", bytesPerSecond: 500_000, requestsPerSecond: undefined }]);
  const before = tally.done;
  await clock.pass(2_000);
  assert.ok(Math.abs(tally.done - before - 1_000_000) <= 50_000, `${tally.done - before}`);
});

test("a thousand hosts are remembered, those that somebody waits for among them", async (t) => {
  const clock = clockOf(t);
  const budgets = new OriginBudgets([{ host: "*", bytesPerSecond: undefined, requestsPerSecond: 1 }], () => clock.ms);
  const giving = new AbortController();
  const waiting = [1, 2, 3].map(() => budgets.request("http://busy/", giving.signal).catch(() => undefined));
  for (let i = 0; i < 1_500; i++) await budgets.request(`http://host-${i}/`, never);
  const hosts = budgets.view().map(({ host }) => host);
  assert.ok(hosts.length <= 1_000 && hosts.includes("busy") && hosts.includes("host-1499"), `${hosts.length} hosts`);
  giving.abort();
  await Promise.all(waiting);
});

test("who gives up takes nothing", async (t) => {
  const clock = clockOf(t);
  const budgets = new OriginBudgets([{ host: "*", bytesPerSecond: undefined, requestsPerSecond: 1 }], () => clock.ms);
  await budgets.request("http://a/", never);
  const stop = new AbortController();
  const given = budgets.lease("a", "requests", stop.signal);
  stop.abort();
  await assert.rejects(given, { code: "ABORTED" });
  assert.equal(budgets.view()[0]?.requests.waitingCount, 0);
});

test("a host's requests and its bytes are waited for apart", async (t) => {
  const clock = clockOf(t);
  const budgets = new OriginBudgets([{ host: "reg.example", bytesPerSecond: 1_000_000, requestsPerSecond: 20 }], () => clock.ms);
  const requests = hammer(5, async () => (await budgets.lease("reg.example", "requests", never)).amount as number);
  const bytes = hammer(5, async () => (await budgets.lease("reg.example", "bytes", never)).amount as number);
  await clock.pass(5_000);
  assert.ok(Math.abs(requests.done - 100) <= 5, `${requests.done}`);
  assert.ok(Math.abs(bytes.done - 5_000_000) <= 300_000, `${bytes.done}`);
});

test("a slice is a twentieth of a second, 16 MiB at most", async (t) => {
  const clock = clockOf(t);
  for (const [bytesPerSecond, amount] of [[1_000_000, 50_000], [1e12, 16 * 1024 * 1024]] as const) {
    const budgets = new OriginBudgets([{ host: "h", bytesPerSecond, requestsPerSecond: undefined }], () => clock.ms);
    const slice = budgets.lease("h", "bytes", never);
    // oxlint-disable-next-line no-await-in-loop -- cases
    await clock.pass(100);
    // oxlint-disable-next-line no-await-in-loop -- cases
    assert.equal((await slice).amount, amount);
  }
});
