/** The dfdaemon command. */
import { keepServiceCode } from "./compiled-code.ts";
import { DFDAEMON } from "./config-schema.ts";
import { DOCTOR } from "./doctor/doctor.ts";
import { awaitLocalToken } from "./join-token.ts";
import { dfdaemonConfig } from "./program-config.ts";
import { runService } from "./service.ts";
import { SETUP } from "./setup/setup.ts";

await runService(
  {
    program: DFDAEMON,
    subcommands: [SETUP, DOCTOR],
    prepare: awaitLocalToken,
    configure: dfdaemonConfig,
    // Loaded late, so that --help, --version and a broken configuration answer at once.
    start: async (config) => {
      keepServiceCode(config.cache.dataDirectory, config.version);
      return await (await import("../dfdaemon/dfdaemon.ts")).startDfdaemon(config);
    },
  },
  process.argv.slice(2),
);
