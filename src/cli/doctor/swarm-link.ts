/** The whole way at once: a made-up image of the supernode's, pulled through the mirror as an engine would. */
import { createHash, randomBytes } from "node:crypto";
import { z } from "zod";
import type { ListenAddress } from "../../peer/config.ts";
import { SELF_TEST_LAYER_BYTES, SELF_TEST_REGISTRY, selfTestRepository } from "../../protocol/self-test.ts";
import { type Answer, answerOrReason, ask, Unanswered } from "./ask.ts";
import { broken, type Finding, ok } from "./finding.ts";

const manifestSchema = z.object({ layers: z.array(z.object({ digest: z.string() })).min(1) });

/** A repository that nobody has cached, for this machine. */
export function freshRepository(): string {
  return selfTestRepository(ARCHITECTURES[process.arch] ?? process.arch, randomBytes(8).toString("hex"));
}

/** Is this peer known to a supernode? The daemon's own word. */
export async function checkRegistration(mirror: ListenAddress): Promise<Finding> {
  const answer = await answerOrReason(ask(mirror, "/readyz"));
  if (!(answer instanceof Unanswered) && answer.status === 200) return ok("registration", "dfdaemon is registered at a supernode");
  const advice = "restart it with the --supernode and --join-token-file that the findings above are about, and see its log";
  return broken("registration", "dfdaemon is not registered at a supernode", advice);
}

/** The finding `swarm`; `cache` too when that is whole. */
export async function checkSwarm(mirror: ListenAddress): Promise<readonly Finding[]> {
  const repository = freshRepository();
  const get = (rest: string): Promise<Answer | Unanswered> =>
    answerOrReason(ask(mirror, `/v2/${repository}/${rest}?ns=${SELF_TEST_REGISTRY}`, PULL_TIMEOUT_MS));
  const manifest = await get("manifests/latest");
  if (manifest instanceof Unanswered || manifest.status !== 200) return [refused("the manifest", manifest)];
  const [layer] = manifestSchema.parse(JSON.parse(manifest.body.toString("utf8"))).layers;
  const digest = layer?.digest ?? "";
  const blob = await get(`blobs/${digest}`);
  if (blob instanceof Unanswered || blob.status !== 200) return [refused("the layer", blob)];
  if (`sha256:${createHash("sha256").update(blob.body).digest("hex")}` !== digest) {
    return [broken("swarm", "the layer that came is not the one of its digest", "this should never be: report it with dfdaemon's log")];
  }
  if (blob.headers["x-dragonfly-task-id"] === undefined) {
    const advice = "see dfdaemon's log for why; others on this page may say it, too";
    return [broken("swarm", "the test image came from its origin, past the swarm", advice)];
  }
  const whole = ok("swarm", `pulled a test image of ${SELF_TEST_LAYER_BYTES / 1024 / 1024} MiB through the mirror and the swarm`);
  const again = await get(`blobs/${digest}`);
  const kept = again instanceof Unanswered ? "" : String(again.headers["x-dragonfly-sources"]);
  if (kept.startsWith(`cache=${blob.body.length},`)) return [whole, ok("cache", "and a second time from this host's cache")];
  return [whole, broken("cache", "the test image was not kept in this host's cache", "check disk space, --cache-quota and --reserved-free, and see dfdaemon's log")];
}

function refused(what: string, answer: Answer | Unanswered): Finding {
  const said = answer instanceof Unanswered ? answer.message : `${answer.status} ${answer.body.toString("utf8").slice(0, MESSAGE_CHARS_MAX).trim()}`;
  const advice = "the supernode reads the test image from itself at the address this host knows it by: see its log, and dfdaemon's";
  return broken("swarm", `the upstream refuses ${what} of the test image: ${said}`, advice);
}

/** Node's names to OCI's. */
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: "amd64", arm64: "arm64" };
const PULL_TIMEOUT_MS = 30_000;
const MESSAGE_CHARS_MAX = 300;
