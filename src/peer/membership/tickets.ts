/** Tickets as those see them to whom they are shown: who may have pieces of a task, and until when. */
import { AppError } from "../../base/errors.ts";
import { ticketClaimsSchema, type TicketClaims } from "../../protocol/control-messages.ts";
import type { PeerId, TaskId } from "../../protocol/ids.ts";
import { type SignatureVerifier, ticketStatement } from "./credentials.ts";

/** The time that tickets are held against. */
export interface TicketClock {
  /** The supernode's wall clock, as far as it is known here. */
  readonly unixMs: () => number;
  /** Since when, by the same clock, the supernode cannot be reached from here; undefined: it can. */
  readonly outageSinceUnixMs: () => number | undefined;
}

/** Of who is the supernode, or believes its own clock. */
export const OWN_CLOCK: TicketClock = { unixMs: Date.now, outageSinceUnixMs: () => undefined };

/** Verified tickets that are remembered: a peer shows one ticket per task on each of its links. */
const TICKET_MEMORY_MAX = 4096;

/** While there is no supernode a ticket that has run out is looked at again after this: it may come back. */
const OUTAGE_LOOK_MS = 5_000;

/** Checks tickets; remembers good ones, because the signature costs 0.1 ms and the same ticket comes on every link. */
export class TicketVerifier {
  readonly #verifier: SignatureVerifier;
  readonly #memory = new Map<string, TicketClaims>();
  readonly #clock: TicketClock;

  constructor(verifier: SignatureVerifier, clock: TicketClock = OWN_CLOCK) {
    this.#verifier = verifier;
    this.#clock = clock;
  }

  /** @throws AppError TICKET_REFUSED (not retriable with the same ticket): forged, expired, of another peer or task */
  verify(ticket: string, taskId: TaskId, peerId: PeerId): TicketClaims {
    const claims = this.#memory.get(ticket) ?? this.#check(ticket);
    // Last used stays longest.
    this.#memory.delete(ticket);
    this.#memory.set(ticket, claims);
    if (this.#memory.size > TICKET_MEMORY_MAX) this.#memory.delete(this.#memory.keys().next().value as string);
    if (this.remainingMs(claims) <= 0) throw refused("it has expired; join the task again");
    if (claims.peerId !== peerId) throw refused("it belongs to another peer");
    if (claims.taskId !== taskId) throw refused("it is for another task");
    return claims;
  }

  /**
   * For how long a ticket is good from now, in ms; 0: no longer. To be asked again when that time is over, for a ticket
   * lasts longer while nobody can renew it: the supernode cannot be reached from here, and could be until it ran out.
   */
  remainingMs({ expiresUnixMs, outageUnixMs }: TicketClaims): number {
    const unixMs = this.#clock.unixMs();
    if (unixMs < expiresUnixMs) return expiresUnixMs - unixMs;
    const sinceUnixMs = this.#clock.outageSinceUnixMs();
    if (sinceUnixMs === undefined || expiresUnixMs <= sinceUnixMs || unixMs >= outageUnixMs) return 0;
    return Math.min(outageUnixMs - unixMs, OUTAGE_LOOK_MS);
  }

  #check(ticket: string): TicketClaims {
    const [body, signature, ...rest] = ticket.split(".");
    if (body === undefined || signature === undefined || rest.length > 0) throw refused("it is malformed");
    if (!this.#verifier.verify(ticketStatement(body), Buffer.from(signature, "base64url"))) {
      throw refused("its signature is not this supernode's");
    }
    const claims = parseTicket(ticket);
    if (claims === undefined) throw refused("it is malformed");
    return claims;
  }
}

/** What a ticket says, believed without a look at the signature: for one's own. Undefined when it says nothing. */
export function parseTicket(ticket: string): TicketClaims | undefined {
  const [body = ""] = ticket.split(".", 1);
  try {
    return ticketClaimsSchema.safeParse(JSON.parse(Buffer.from(body, "base64url").toString())).data;
  } catch {
    return undefined;
  }
}

function refused(why: string): AppError {
  return new AppError("TICKET_REFUSED", `the ticket is refused: ${why}`);
}
