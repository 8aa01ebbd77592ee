import type { Entropy } from '../base/entropy.ts';
import type { Account, SaveNonces } from './authentication.ts';
import type { Challenge } from './challenges.ts';
import type { Ends, ProtocolVersion } from './header.ts';

/** How a session ended. `status` is 200, or the DM status of the failure. `reason` is for people. */
export interface SessionOutcome {
  readonly status: number;
  readonly reason: string;
}

/** What one side needs for a session. */
export interface SessionParts {
  readonly ends: Ends;
  readonly account: Account;
  readonly saveNonces: SaveNonces;
  readonly entropy: Entropy;
  /** Hexadecimal. Package #0 gives it, or the client chooses it. */
  readonly sessionId: string;
  /**
   * For a server that keeps nothing of a client that has not proved itself: the challenge that such a client gets, and the
   * MsgID of the first message of the client that the session is given.
   */
  readonly challenge?: Challenge;
  readonly firstMsgId?: number;
  /** Where a client that has proved itself is to send its next messages. */
  readonly respUri?: string;
  /**
   * Asks the client for a proof in each message (status 200 and not 212), for a transport that does not tie messages to each
   * other. A message without a proof counts as before: its transport has to know where it belongs.
   */
  readonly asksEach?: boolean;
  /**
   * The transport has verified that the other side is the one of the account, and encrypts: TLS with its certificate, or a key of the
   * account. So a password may go to it (`basic`) before it has proved itself.
   */
  readonly isPeerVerified?: boolean;
  /** Protocol version of the first message, DM/1.2 when absent. A server answers in the version of the client. */
  readonly version?: ProtocolVersion;
  /**
   * Coding of the first message, XML when absent, whose messages are the largest. A server answers in the coding of the message
   * (`Seal.mediaType`).
   */
  readonly mediaType?: string;
  /** Largest message in either direction, in bytes, where the way to the other side takes less than this engine. */
  readonly maxMsgSize?: number;
  /** Most bytes that the session may hold (`Session.weight`): `weightBound` when absent. */
  readonly mostWeight?: number;
}
