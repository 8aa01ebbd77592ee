import type { Clock } from '../../base/clock.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { ToldCauses } from '../../base/told-causes.ts';
import type { Right } from '../../dm/acl.ts';
import { DmError } from '../../dm/dm-error.ts';
import { DmStatus } from '../../dm/status.ts';
import type { NodePath } from '../../dm/uri.ts';
import { type Act, type ObjectKind, type Rule, type ServerAct, serverActs } from './acts.ts';

export interface AuthorisationParts {
  /** Whether a server has an account here, or has it again at the next start. */
  readonly hasAccount: (server: string) => boolean;
  /** ServerIDs of `tunnel.servers`. */
  readonly tunnelServers: readonly string[];
  /** Whether the ACLs of the gateway's tree give a right. */
  readonly permits: (path: NodePath, right: Right, server: string) => boolean;
  /** Path of the node that stands for an object. */
  readonly nodeOf: (kind: ObjectKind, name: string) => NodePath;
  /** Whether a device may use the tunnel. */
  readonly isTunnelled: (device: string) => boolean;
  readonly clock: Clock;
  readonly events: Events;
}

/** Reports of refusals, each by act and server. */
const reports = { period: 600_000, causes: 256 } as const;
/** Characters of a name that a report has. */
const nameLength = 64;

/**
 * Which DM server may do what through this gateway (docs/security.md). For commands to the gateway's own tree the ACLs alone
 * decide, in `ManagementTree`. All else that a server's name leads to is asked here.
 */
export class Authorisation {
  readonly #parts: AuthorisationParts;
  readonly #reports: ToldCauses;

  constructor(parts: AuthorisationParts) {
    this.#parts = parts;
    this.#reports = new ToldCauses(reports, parts.clock);
  }

  /** ServerIDs of the servers that devices may reach through the tunnel. */
  get tunnelServers(): readonly string[] {
    return this.#parts.tunnelServers;
  }

  /** @param object DevId, ServerID, or the name of a node, as `ObjectKind` says */
  may(server: string, act: ServerAct, object = ''): boolean {
    // A server that could put its own account in could give itself another way in than the one it was given.
    if (act === 'replace-account' && server === object) return false;
    const { hasAccount, tunnelServers } = this.#parts;
    const { account, tunnel, at }: Act = serverActs[act];
    return (
      (account !== undefined && hasAccount(server) && this.#holds(account, server, at, object)) ||
      (tunnel !== undefined && tunnelServers.includes(server) && this.#holds(tunnel, server, at, object))
    );
  }

  /**
   * As `may`, for what comes from outside and has no other report: each cause is told at once, and then every ten minutes at most.
   * @throws {PosternError} `notFound` for a server without the standing that the act needs
   * @throws {DmError} 425 for a server without the right
   */
  demand(server: string, act: ServerAct, object?: string): void {
    if (this.may(server, act, object)) return;
    const { hasAccount, tunnelServers, events } = this.#parts;
    const isKnown = hasAccount(server) || tunnelServers.includes(server);
    const name = server.slice(0, nameLength);
    const reason = isKnown ? `${name} has no right to ${act}` : `no account for ${name}`;
    const refused = this.#reports.count(`${act} ${name}`);
    if (refused !== undefined)
      events.emit('notification.denied', {
        device: object?.slice(0, nameLength),
        server: name,
        reason,
        refused,
      });
    throw isKnown ? new DmError(DmStatus.PermissionDenied, reason) : new PosternError('notFound', reason);
  }

  #holds(rule: Rule, server: string, at: ObjectKind | undefined, object: string): boolean {
    const { permits, nodeOf, isTunnelled } = this.#parts;
    if (rule === 'policy') return isTunnelled(object);
    return at === undefined || permits(nodeOf(at, object), rule as Right, server);
  }
}
