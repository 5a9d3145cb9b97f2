/** `dfdaemon setup`: points the container engines of this host at dfdaemon, or back. */
import { collect } from "../command-line.ts";
import type { DFDAEMON_SETTINGS } from "../config-schema.ts";
import { engineOption } from "../engine-option.ts";
import type { Subcommand } from "../subcommand.ts";

export const SETUP: Subcommand<typeof DFDAEMON_SETTINGS> = {
  name: "setup",
  summary: "points this host's container engines at dfdaemon, or back with --undo",
  takes: ["listen", "dataDir"],
  declare: (command) => {
    command
      .addOption(engineOption("set up this engine only (containerd, docker, cri-o, podman); repeatable"))
      .option("--registry <host>", "mirror this registry only; repeatable", collect)
      .option("--root <dir>", "the root directory of the host to set up", "/")
      .option("--dry-run", "write nothing; print what would change as a diff")
      .option("--undo", "put every file back as it was before setup")
      .option("--json", "print the result as JSON");
  },
  // Loaded late: the daemon itself does without.
  run: async (call) => (await import("./run-setup.ts")).runSetup(call),
};
