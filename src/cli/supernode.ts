/** The supernode command. */
import { SUPERNODE } from "./config-schema.ts";
import { supernodeConfig } from "./program-config.ts";
import { runService } from "./service.ts";

await runService(
  {
    program: SUPERNODE,
    configure: supernodeConfig,
    // Loaded late, so that --help, --version and a broken configuration answer at once.
    start: async (config) => (await import("../supernode/supernode.ts")).startSupernode(config),
  },
  process.argv.slice(2),
);
