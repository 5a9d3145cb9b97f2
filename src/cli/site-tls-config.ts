/** From the TLS settings to what TLS between the site's programs stands on. */
import type { TlsConfig } from "../peer/config.ts";
import { invalidConfig, type ResolvedConfig } from "./config.ts";
import type { TLS_SETTINGS } from "./config-schema.ts";

/** @throws AppError CONFIG_INVALID for some files of three, or files while TLS is off */
export function tlsConfig({ values, sources }: Pick<ResolvedConfig<typeof TLS_SETTINGS>, "values" | "sources">): TlsConfig | undefined {
  const { tls, tlsCa: caFile, tlsCert: certFile, tlsKey: keyFile } = values;
  const given = (["tlsCa", "tlsCert", "tlsKey"] as const).filter((name) => values[name] !== undefined);
  if (given[0] !== undefined && !tls) throw invalidConfig([`${sources[given[0]]} gives a TLS file, and tls is off: set it, too, or leave the file out`]);
  if (!tls) return undefined;
  if (given.length === 0) return { kind: "token" };
  if (caFile !== undefined && certFile !== undefined && keyFile !== undefined) return { kind: "files", caFile, certFile, keyFile };
  throw invalidConfig([`of the TLS files only ${given.join(" and ")} is given: all of tlsCa, tlsCert and tlsKey, or none`]);
}
