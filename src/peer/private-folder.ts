import { chmod, mkdir } from "node:fs/promises";
import { toAppError } from "../base/errors.ts";

/**
 * Makes a folder that only its owner may look into, and closes one that is there: what lies in it may be private.
 * Where it cannot be made, who uses it says why; where it cannot be closed, `warn` is told.
 */
export async function makePrivateFolder(path: string, warn: (message: string) => void): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
  } catch {
    return;
  }
  await chmod(path, 0o700).catch((error: unknown) => warn(`cannot close ${path} to other users: ${toAppError(error).message}`));
}
