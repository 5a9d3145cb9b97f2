import type { OriginInfo } from "./origin.ts";

/**
 * Why `found` cannot be the version of the file that `expected` describes; `undefined` when it may be.
 *
 * Lengths always count. Equal strong ETags settle the rest: servers behind one name often differ in Last-Modified
 * only. What either side does not say is not compared.
 */
export function versionMismatch(expected: OriginInfo, found: OriginInfo): string | undefined {
  if (differ(expected.lengthBytes, found.lengthBytes)) {
    return `its length was ${expected.lengthBytes} bytes and is ${found.lengthBytes}`;
  }
  if (expected.etag !== undefined && found.etag !== undefined) {
    if (!isSameEtag(expected.etag, found.etag)) return `its ETag was ${expected.etag} and is ${found.etag}`;
    if (isStrongEtag(expected.etag) && isStrongEtag(found.etag)) return undefined;
  }
  if (differ(expected.lastModified, found.lastModified)) {
    return `its Last-Modified was ${expected.lastModified} and is ${found.lastModified}`;
  }
  return undefined;
}

/** True for an ETag that vouches for every byte: quoted, and without `W/`. Source: RFC 9110 §8.8.3. */
export function isStrongEtag(etag: string): boolean {
  return /^"[^"]*"$/.test(etag);
}

/** True when both name one version, to the byte or nearly (`W/`). Source: RFC 9110 §8.8.3.2, weak comparison. */
export function isSameEtag(left: string, right: string): boolean {
  return opaque(left) === opaque(right);
}

function differ(expected: number | string | undefined, found: number | string | undefined): boolean {
  return expected !== undefined && found !== undefined && expected !== found;
}

function opaque(etag: string): string {
  return etag.startsWith("W/") ? etag.slice(2) : etag;
}
