/** The supernode command. */
import { keepServiceCode } from "./compiled-code.ts";
import { SUPERNODE } from "./config-schema.ts";
import { supernodeConfig } from "./program-config.ts";
import { runService } from "./service.ts";
import { CACHE_COMMANDS } from "./supernode-cache.ts";

await runService(
  {
    program: SUPERNODE,
    subcommands: CACHE_COMMANDS,
    configure: supernodeConfig,
    // Loaded late, so that --help, --version and a broken configuration answer at once.
    start: async (config) => {
      keepServiceCode(config.cache.dataDirectory, config.version);
      return await (await import("../supernode/supernode.ts")).startSupernode(config);
    },
  },
  process.argv.slice(2),
);
