/**
 * The OCI's own conformance programme, with dfdaemon in front of a registry for everything that is read: what passes
 * at the registry passes through dfdaemon.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";

import { startLoopbackDaemon, Supernode } from "./lib/dragonfly.ts";
import { freePort } from "../lib/ports.ts";
import { Lab } from "./lib/processes.ts";
import { Registry } from "./lib/registry.ts";
import { tool } from "./lib/tools.ts";

/** Of those that read; the registry of Debian passes more. */
const PASSED_MIN = 150;
/** What dfdaemon does better than a registry of 2021: `manifests/sha256:<garbage>` is no server's fault. */
const BETTER = /bad digest|invalid manifest digest/i;

void test("what passes the OCI's conformance tests at the registry passes them through dfdaemon", async (t) => {
  const lab = new Lab("conformance");
  await lab.use(async () => {
    const registry = await Registry.start(lab, "127.0.0.1", await freePort());
    const supernode = await Supernode.start(lab, "127.0.0.1");
    const daemon = await startLoopbackDaemon(lab, "dfdaemon", supernode, ["--registry", `reg.test=${registry.url}`]);

    const split = await startSplit(lab, daemon.mirror, registry.backUrl);
    const [direct, mirrored] = await Promise.all([
      conformance(lab, "direct", registry.backUrl),
      conformance(lab, "mirrored", split.url),
    ]);

    const passedIn = (statuses: readonly string[]): number => statuses.filter((status) => status === "passed").length;
    const passedCount = passedIn([...direct.values()].flat());
    t.diagnostic(`${passedCount} of ${[...direct.values()].flat().length} pass at the registry; ${split.reads} requests went through dfdaemon`);
    assert.ok(passedCount >= PASSED_MIN, `only ${passedCount} pass at the registry itself`);
    const lost = [...direct].flatMap(([name, statuses]) => {
      const through = mirrored.get(name) ?? [];
      return passedIn(through) < passedIn(statuses) ? `${name}: ${through.join(", ")} instead of ${statuses.join(", ")}` : [];
    });
    assert.deepEqual(lost, [], "pass at the registry, and not through dfdaemon");
    const better = [...mirrored].filter(([name, statuses]) => passedIn(statuses) > 0 && BETTER.test(name));
    assert.ok(better.length > 0, `a bad digest is not refused as one: ${[...mirrored.keys()].filter((name) => BETTER.test(name)).join(", ")}`);
    assert.ok(split.reads >= PASSED_MIN, `only ${split.reads} requests went through dfdaemon`);
  });
});

/** @returns the statuses of the tests by their name; several may have the same, in any order */
async function conformance(lab: Lab, name: string, url: string): Promise<ReadonlyMap<string, readonly string[]>> {
  const results = lab.makeDir(`conformance-${name}`);
  const done = await lab.run([tool("oci-conformance")], {
    env: {
      OCI_REGISTRY: new URL(url).host, OCI_TLS: "disabled", OCI_VERSION: "1.1", OCI_RESULTS_DIR: results,
      OCI_REPO1: `${name}/one`, OCI_REPO2: `${name}/two`,
      // A mirror that holds content for its clients does not hear of deletions.
      OCI_API_BLOBS_DELETE: "false", OCI_API_MANIFESTS_DELETE: "false", OCI_API_TAGS_DELETE: "false",
      OCI_API_BLOBS_DIGEST_HEADER: "true", OCI_API_MANIFESTS_DIGEST_HEADER: "true",
    },
  });
  assert.match(done.stdout, /Data conformance:/, `${name}: exit ${done.code ?? done.signal}\n${done.stdout}${done.stderr}`);
  const report = readFileSync(`${results}/junit.xml`, "utf8");
  const statuses = new Map<string, string[]>();
  for (const [, test = "", status = ""] of report.matchAll(/<testcase name="([^"]*)"[^>]* status="([^"]*)"/g)) statuses.set(test, [...(statuses.get(test) ?? []), status]);
  return statuses;
}

/** For so long a tag that moves may be answered as it was: an origin is asked about a file once a second at most. */
const TAG_AGE_MS = 1_100;

/** A registry's address at which reading goes to `mirror`, and all else to `registry`. */
async function startSplit(lab: Lab, mirror: string, registry: string): Promise<{ readonly url: string; readonly reads: number }> {
  let reads = 0;
  const written = new Set<string>();
  const answer = (request: IncomingMessage, response: ServerResponse): void => {
    const isRead = /^(?:GET|HEAD)$/.test(request.method ?? "") && !(request.url ?? "").includes("/uploads/");
    if (isRead) reads += 1;
    const { hostname, port } = new URL(isRead ? mirror : registry);
    const { method, url: path, headers } = request;
    const isMoved = method === "PUT" && written.has(path ?? "");
    if (method === "PUT") written.add(path ?? "");
    const upstream = httpRequest({ hostname, port, method, path, headers, agent: false }, (got) => {
      setTimeout(
        () => {
          response.writeHead(got.statusCode ?? 0, got.rawHeaders);
          got.pipe(response);
        },
        isMoved ? TAG_AGE_MS : 0,
      );
    });
    upstream.on("error", () => response.destroy());
    response.on("close", () => upstream.destroy());
    request.pipe(upstream);
  };
  const server = createServer(answer).listen(0, "127.0.0.1");
  await once(server, "listening");
  lab.onClose(() => {
    server.close();
    server.closeAllConnections();
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get reads() {
      return reads;
    },
  };
}
