import { lstat, mkdir, unlink } from "node:fs/promises";
import { connect } from "node:net";
import { dirname } from "node:path";
import { AppError } from "../../base/errors.ts";

/**
 * Makes `path` free to listen on: its folder exists, and what a dead daemon left there is gone.
 *
 * @throws AppError LISTEN_FAILED when somebody listens there, or it is something else than a socket
 */
export async function claimSocketPath(path: string): Promise<void> {
  if (Buffer.byteLength(path) > PATH_BYTES_MAX) {
    throw new AppError(
      "LISTEN_FAILED",
      `the socket path ${path} is longer than the ${PATH_BYTES_MAX} bytes the system allows; choose a shorter one with --socket`,
    );
  }
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o755 });
    const found = await lstat(path).catch((thrown: unknown) => {
      if ((thrown as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw thrown;
    });
    if (found === undefined) return;
    if (!found.isSocket())
      throw new AppError(
        "LISTEN_FAILED",
        `${path} exists and is no socket: it stays as it is; choose another path with --socket`,
      );
    if (await isAlive(path))
      throw new AppError(
        "LISTEN_FAILED",
        `another dfdaemon listens on ${path}; stop it, or choose another path with --socket`,
      );
    await unlink(path);
  } catch (thrown) {
    if (thrown instanceof AppError) throw thrown;
    throw new AppError(
      "LISTEN_FAILED",
      `cannot make the socket ${path}: ${(thrown as Error).message}; choose another with --socket`,
      { cause: thrown },
    );
  }
}

function isAlive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    // Refused: nobody has it open. Anything else (no permission, a full queue): somebody may.
    socket.once("error", (error: NodeJS.ErrnoException) =>
      resolve(error.code !== "ECONNREFUSED" && error.code !== "ENOENT"),
    );
  });
}

/** sockaddr_un holds 108 bytes with the terminating zero (unix(7)). */
const PATH_BYTES_MAX = 107;
