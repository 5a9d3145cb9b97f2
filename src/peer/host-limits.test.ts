import assert from "node:assert/strict";
import { test } from "node:test";
import { Registry } from "prom-client";
import { HostLimits } from "./host-limits.ts";
import { RateGate } from "./rate-gate.ts";

function limitsOf(): { readonly limits: HostLimits; readonly gates: Readonly<Record<"download" | "upload" | "origin", RateGate>>; readonly registry: Registry } {
  // A clock that stands: what was granted, is; what waits, waits.
  const gates = { download: new RateGate(1_000_000, () => 0), upload: new RateGate(undefined, () => 0), origin: new RateGate(10, () => 0) };
  const limits = new HostLimits(gates);
  const registry = new Registry();
  limits.observe(registry);
  return { limits, gates, registry };
}

async function valuesOf(registry: Registry, name: string): Promise<Record<string, string>> {
  const lines = (await registry.metrics()).matchAll(new RegExp(`^${name}\\{limit="(\\w+)"\\} (\\S+)$`, "gm"));
  return Object.fromEntries([...lines].map(([, limit, value]) => [limit, value]));
}

test("metrics say what is set, what moved, and who waits, for each limit", async (t) => {
  const { limits, gates, registry } = limitsOf();
  t.after(() => Object.values(gates).forEach((gate) => gate.close()));
  gates.upload.pass(gates.upload.flow("normal"), 5000, () => undefined);
  const reading = gates.origin.flow("normal");
  assert.notEqual(gates.origin.pass(reading, 100_000, () => undefined) ?? gates.origin.pass(reading, 100_000, () => undefined), undefined);
  assert.deepEqual(await valuesOf(registry, "dragonfly_limit_bytes_per_second"), { download: "1000000", upload: "+Inf", origin: "10" });
  const moved = await valuesOf(registry, "dragonfly_limit_passed_bytes_total");
  assert.deepEqual([moved["download"], moved["upload"]], ["0", "5000"]);
  assert.equal((await valuesOf(registry, "dragonfly_limit_waiting"))["origin"], "1");

  gates.upload.pass(gates.upload.flow("normal"), 7, () => undefined);
  assert.equal((await valuesOf(registry, "dragonfly_limit_passed_bytes_total"))["upload"], "5007", "a counter that is scraped twice counts once");
  limits.change({ downloadBytesPerSecond: null, originBytesPerSecond: 20 });
  assert.deepEqual(await valuesOf(registry, "dragonfly_limit_bytes_per_second"), { download: "+Inf", upload: "+Inf", origin: "20" });
});

test("a reload takes away what it does not name; a change leaves it", (t) => {
  const { limits, gates } = limitsOf();
  t.after(() => Object.values(gates).forEach((gate) => gate.close()));
  limits.change({ uploadBytesPerSecond: 500 });
  assert.deepEqual([gates.download.bytesPerSecond, gates.upload.bytesPerSecond, gates.origin.bytesPerSecond], [1_000_000, 500, 10]);
  limits.set({ downloadBytesPerSecond: 9, uploadBytesPerSecond: undefined, originBytesPerSecond: undefined });
  assert.deepEqual([gates.download.bytesPerSecond, gates.upload.bytesPerSecond, gates.origin.bytesPerSecond], [9, undefined, undefined]);
});
