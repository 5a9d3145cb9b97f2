import type { TlsConfig } from "../peer/config.ts";
import { SiteTls } from "../peer/membership/site-tls.ts";

/** For a subcommand, which looks once. @throws AppError CONFIG_INVALID */
export function siteTls(config: TlsConfig | undefined, token: string | undefined): SiteTls | undefined {
  if (config === undefined) return undefined;
  const tls = new SiteTls({ config, token, log: { info: () => undefined, warn: () => undefined } });
  tls.close();
  return tls;
}
