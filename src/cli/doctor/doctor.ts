/** `dfdaemon doctor`: tries every link from the engines to the supernode, and names those that are broken. */
import { collect } from "../command-line.ts";
import type { DFDAEMON_SETTINGS } from "../config-schema.ts";
import { engineOption } from "../engine-option.ts";
import type { Subcommand } from "../subcommand.ts";

export const DOCTOR: Subcommand<typeof DFDAEMON_SETTINGS> = {
  name: "doctor",
  summary: "tries each link from this host's container engines to the supernode, and names the broken ones",
  takes: ["listen", "peerListen", "socket", "dataDir", "reservedFree", "supernodes", "joinToken", "joinTokenFile", "insecureNoToken", "tls", "tlsCa", "tlsCert", "tlsKey"],
  declare: (command) => {
    command
      .addOption(engineOption("look at this engine only (containerd, docker, cri-o, podman); repeatable"))
      .option("--image <reference>", "have each engine pull this image, too; repeatable", collect)
      .option("--json", "print the findings as JSON");
  },
  // Loaded late: the daemon itself does without.
  run: async (call) => (await import("./examine.ts")).runDoctor(call),
};
