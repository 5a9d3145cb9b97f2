/** Writes docs/config.md: `node src/cli/print-config-docs.ts`. */
import { writeFileSync } from "node:fs";
import { configDocs } from "./config-docs.ts";

writeFileSync(new URL("../../docs/config.md", import.meta.url), configDocs());
