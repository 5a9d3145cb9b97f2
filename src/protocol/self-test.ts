/**
 * The registry that every supernode keeps for `dfdaemon doctor`: images made up when they are asked for, so that the
 * whole chain from an engine to the supernode's origin reads can be tried without another server.
 */

/** Its name to engines and dfdaemon. The top-level domain never resolves (RFC 2606): without a mirror no pull succeeds. */
export const SELF_TEST_REGISTRY = "doctor.invalid";

/** Where it is on the supernode's port; `/v2/…` follows. */
export const SELF_TEST_PATH = "/self-test";

/** Of the one layer: more than travels inside the answer to a join, so that it takes links and the disk. */
export const SELF_TEST_LAYER_BYTES: number = 1024 * 1024;

/**
 * A repository that nobody had before, for machines of `architecture` (as OCI has it: `amd64`).
 *
 * @param nonce lower-case letters and digits, at most 32; what the content is made of
 */
export function selfTestRepository(architecture: string, nonce: string): string {
  return `self-test/${architecture}/${nonce}`;
}

/** Its parts; undefined for any other repository. */
export function parseSelfTestRepository(repository: string): { readonly architecture: string } | undefined {
  const architecture = /^self-test\/([a-z0-9]{1,16})\/[a-z0-9]{1,32}$/.exec(repository)?.[1];
  return architecture === undefined ? undefined : { architecture };
}
