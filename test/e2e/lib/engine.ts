import type { Finished } from "./processes.ts";

export interface Credentials {
  readonly name: string;
  readonly password: string;
}

/** A container engine on a host, with the host's dfdaemon as its mirror. References are the images' original names. */
export interface Engine {
  /** With its version, for messages. */
  readonly name: string;
  pull(reference: string, credentials?: Credentials): Promise<Finished>;
  /** Runs the image's own command from what was pulled; never pulls. */
  run(reference: string): Promise<Finished>;
  /** Removes the image and its layers. */
  forget(reference: string): Promise<Finished>;
}
