/**
 * A site's certificate authority, whose key follows from the join token: who has the token can vouch for itself and
 * knows its like, so that there is nothing to hand out, to renew or to lose beside the token.
 *
 * No safer than the token, and no less: 256 bits from `generateJoinToken`. Every program makes the authority's certificate
 * for itself, with another serial number and the same name and key, and a certificate of its own that lives in memory.
 */
import { createECDH, createPrivateKey, createPublicKey, generateKeyPairSync, hkdfSync, X509Certificate, type KeyObject } from "node:crypto";
import { hostname, networkInterfaces } from "node:os";
import { authorityCertificate, issuerOf, type Lifetime, memberCertificate } from "./certificate.ts";

/** What one end of a TLS connection shows and trusts, PEM. */
export interface Credentials {
  readonly ca: string;
  readonly cert: string;
  /** Secret. */
  readonly key: string;
}

/** In every certificate that a site's authority signs; `.internal` is nobody's in the public DNS. */
export const SITE_NAME = "site.dragonfly.internal";

/** @param nowUnixMs the host's certificate holds from a day before to `MEMBER_LIFETIME_MS` after it */
export function credentialsByToken(token: string, nowUnixMs: number): Credentials {
  const lifetime: Lifetime = { fromMs: nowUnixMs - CLOCK_TOLERANCE_MS, untilMs: nowUnixMs + MEMBER_LIFETIME_MS };
  const keys = authorityKeys(token);
  const ca = authorityCertificate("Dragonfly site", keys, { fromMs: lifetime.fromMs, untilMs: nowUnixMs + AUTHORITY_LIFETIME_MS });
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const issuer = issuerOf(new X509Certificate(ca).raw, keys.privateKey);
  const cert = memberCertificate(issuer, [SITE_NAME, ...ownNames()], publicKey, lifetime);
  return { ca, cert, key: privateKey.export({ type: "pkcs8", format: "pem" }).toString() };
}

function authorityKeys(token: string): { readonly privateKey: KeyObject; readonly publicKey: KeyObject } {
  const ecdh = createECDH("prime256v1");
  for (let attempt = 0; ; attempt++) {
    const secret = Buffer.from(hkdfSync("sha256", token, "", `dragonfly/1 site authority ${attempt}`, 32));
    try {
      // One in 2³² is no number of the curve's.
      ecdh.setPrivateKey(secret);
    } catch {
      continue;
    }
    const point = ecdh.getPublicKey();
    // Uncompressed: 4, x, y.
    const text = (from: number, to: number): string => point.toString("base64url", from, to);
    const key = { kty: "EC", crv: "P-256", d: secret.toString("base64url"), x: text(1, 33), y: text(33, 65) };
    const privateKey = createPrivateKey({ key, format: "jwk" });
    return { privateKey, publicKey: createPublicKey(privateKey) };
  }
}

/** So that curl and Prometheus, told of the authority, find the name that they asked for. */
function ownNames(): readonly string[] {
  const addresses = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
  // A scoped address is no address elsewhere.
  const own = addresses.filter(({ address }) => !address.startsWith("fe80:")).map(({ address }) => address);
  return [...new Set([hostname(), "localhost", ...own])].slice(0, NAME_COUNT_MAX);
}

const DAY_MS = 24 * 60 * 60_000;
/** It is as good as the token is; those who were told of it by file should not have to be told soon again. */
const AUTHORITY_LIFETIME_MS = 3650 * DAY_MS;
/** Made anew at half of it, and with each start. */
export const MEMBER_LIFETIME_MS: number = 30 * DAY_MS;
/** For those whose clock is behind. */
const CLOCK_TOLERANCE_MS = DAY_MS;
/** A host with thousands of container interfaces has names enough. */
const NAME_COUNT_MAX = 64;
