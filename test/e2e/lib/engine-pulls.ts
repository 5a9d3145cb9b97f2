/** What every engine must be able to do with dfdaemon as its mirror. */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";

import type { Credentials, Engine } from "./engine.ts";
import type { PushedImage } from "./image.ts";
import type { Finished } from "./processes.ts";
import { bytesSentTwice } from "./requests.ts";
import { REGISTRY_NAME, type Site } from "./site.ts";
import { USER } from "./token-server.ts";

/** Who speaks to registries for the site's hosts. */
const OURS = /^(?:dfdaemon|dragonfly)\//;

/**
 * The engine pulls and runs a public and a token-protected image, each never seen before: cold, warm, and with the
 * registry stopped. Nothing goes past dfdaemon; each blob leaves the registry once; who may not, does not get it.
 */
export async function assertPulls(
  t: TestContext,
  site: Site,
  engine: Engine,
  images: { readonly open: PushedImage; readonly secret: PushedImage },
  options: {
    readonly registryName?: string;
    /**
     * Containerd asks without credentials until it is refused. The others fetch a token first, new for each pull: with
     * the registry stopped nobody can say whether such a caller may read anything.
     */
    readonly pullsPublicAnonymously: boolean;
    /** False for an engine that gives a registry's password to no mirror, and so pulls what needs it from the registry. */
    readonly trustsMirror?: boolean;
  },
): Promise<void> {
  const { registry } = site;
  const { registryName = REGISTRY_NAME, pullsPublicAnonymously, trustsMirror = true } = options;
  const [open, secret] = [images.open, images.secret].map((image) => `${registryName}/${image.repository}:${image.tag}`) as [string, string];
  const pulls = async (what: string, reference: string, credentials?: typeof USER): Promise<void> => {
    const pulled = await engine.pull(reference, credentials);
    assert.equal(pulled.code, 0, `${engine.name}, ${what}: ${textOf(pulled)}\n${registry.log.toString()}`);
    t.diagnostic(`${engine.name}, ${what}: pulled in ${(pulled.ms / 1000).toFixed(1)} s`);
    if (credentials !== undefined && !trustsMirror) return;
    assertNothingWentPast(site, `${engine.name}, ${what}`);
  };
  const runs = async (what: string, reference: string, image: PushedImage): Promise<void> => {
    const ran = await engine.run(reference);
    assert.equal(ran.code, 0, `${engine.name}, ${what}: ${textOf(ran)}`);
    assert.equal(ran.stdout, image.output, `${engine.name}, ${what}`);
  };
  const refuses = async (what: string, reference: string, credentials?: Credentials): Promise<void> => {
    const pulled = await engine.pull(reference, credentials);
    assert.notEqual(pulled.code, 0, `${engine.name}, ${what}: pulled what it may not`);
  };
  const forgets = async (reference: string): Promise<void> => {
    const forgotten = await engine.forget(reference);
    assert.equal(forgotten.code, 0, `${engine.name}: ${textOf(forgotten)}`);
  };

  registry.log.clear();
  await pulls("public, cold", open);
  assertReadOnce(site, images.open);
  await runs("public, cold", open, images.open);

  registry.log.clear();
  await refuses("private, no credentials", secret);
  await refuses("private, wrong password", secret, { name: USER.name, password: "wrong" });
  assert.equal(blobBytes(site), 0, `${engine.name}: blobs were read for nobody\n${registry.log.toString()}`);
  registry.log.clear();
  await pulls("private, cold", secret, USER);
  if (trustsMirror) assertReadOnce(site, images.secret);
  await runs("private, cold", secret, images.secret);
  await forgets(secret);
  await refuses("private, no credentials, cached", secret);

  registry.log.clear();
  await forgets(open);
  await pulls("public, warm", open);
  if (trustsMirror) await pulls("private, warm", secret, USER);
  assert.equal(blobBytes(site), 0, `${engine.name}: blobs that are here were read again\n${registry.log.toString()}`);
  if (!trustsMirror) await pulls("private, again", secret, USER);
  await runs("private, again", secret, images.secret);

  await forgets(open);
  await forgets(secret);
  registry.log.clear();
  await registry.stop();
  try {
    if (pullsPublicAnonymously) {
      await pulls("public, registry stopped", open);
      await runs("public, registry stopped", open, images.open);
    } else {
      await refuses("public by a new token, registry stopped", open);
    }
    await refuses("private, no credentials, registry stopped", secret);
  } finally {
    await registry.resume();
  }
}

/** Since its log was last cleared the registry heard from nobody but dfdaemons and the supernode. */
export function assertNothingWentPast({ registry }: Pick<Site, "registry">, what = ""): void {
  const strangers = registry.log.entries.filter((entry) => !OURS.test(entry.userAgent));
  assert.deepEqual(strangers.map(({ method, path, userAgent }) => ({ method, path, userAgent })), [], `${what}: went past dfdaemon`);
}

/** Four ranges of 16 KiB: by them a second repository shows that it holds a layer which is here already. Source: docs/decisions.md §7. */
const PROOF_BYTES = 4 * 16 * 1024;
/** Blobs that a site has read whole, of whatever repository. */
const readWhole = new WeakMap<Site, Set<string>>();

function assertReadOnce(site: Site, image: PushedImage): void {
  const { registry } = site;
  const whole = readWhole.get(site) ?? new Set<string>();
  readWhole.set(site, whole);
  const log = registry.log.toString();
  for (const { digest, size } of image.blobs) {
    const path = `/v2/${image.repository}/blobs/${digest}`;
    assert.equal(bytesSentTwice(registry.log.intervals(path)), 0, `bytes of ${digest} were read twice\n${log}`);
    const read = registry.log.bytes(path);
    if (whole.has(digest)) assert.ok(read <= Math.min(size, PROOF_BYTES), `${read} bytes read of ${digest}, which was here already\n${log}`);
    else assert.equal(read, size, `bytes read of ${digest}, which has ${size}\n${log}`);
    whole.add(digest);
  }
}

function blobBytes({ registry }: Site): number {
  const blobs = registry.log.entries.filter((entry) => entry.path.includes("/blobs/") && entry.status < 300);
  return blobs.reduce((sum, entry) => sum + entry.bytes, 0);
}

function textOf(finished: Finished): string {
  return `exit ${finished.code ?? finished.signal}\n${finished.stdout}${finished.stderr}`;
}
