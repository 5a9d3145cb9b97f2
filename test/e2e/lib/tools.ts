import { existsSync } from "node:fs";

/** Where `.ci/e2e-tools` puts what Debian's stable packages do not have. */
const TOOLS_DIR = process.env["E2E_TOOLS_DIR"] ?? "/var/cache/dragonfly-e2e";

export const TOOLS_BIN = `${TOOLS_DIR}/bin`;

/** A program compiled from its Go module. @throws Error when it is not there: nothing is skipped */
export function tool(name: "containerd" | "crane" | "crictl" | "helm" | "oci-conformance" | "oras"): string {
  return there(`${TOOLS_BIN}/${name}`);
}

/** The files of a Debian that is newer than this machine's, with the engines installed. @throws Error as {@link tool} */
export function newerDebian(): string {
  return there(`${TOOLS_DIR}/newer-debian`);
}

function there(path: string): string {
  if (existsSync(path)) return path;
  throw new Error(`${path} is missing: run .ci/e2e-tools as root first`);
}
