import { existsSync, lstatSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { PosternError } from '../../base/errors.ts';
import { userFolder } from '../../base/private-folder.ts';

const name = 'admin.sock';

/** Folder that systemd makes for the shipped unit (RuntimeDirectory=postern). Only root and the unit may open it. */
const unitFolder = '/run/postern';

/** Default path of the socket of a gateway: in the folder that systemd made for it, or else in that of the user. */
export function ownSocket(): string {
  const [made] = (process.env.RUNTIME_DIRECTORY ?? '').split(':');
  return join(made || userFolder(), name);
}

/**
 * Path of the socket that `postern status` and other commands ask: that of a gateway of this user, or else that of the
 * shipped unit.
 */
export function defaultSocket(unit = unitFolder): string {
  const own = ownSocket();
  const ofUnit = join(unit, name);
  return !existsSync(own) && existsSync(ofUnit) ? ofUnit : own;
}

/** What tells a file from another one that takes its place. */
export interface FileIdentity {
  readonly dev: number;
  readonly ino: number;
}

/** The identity of a file. Undefined when there is none. */
export function identityOf(path: string): FileIdentity | undefined {
  const found = lstatSync(path, { throwIfNoEntry: false });
  return found && { dev: found.dev, ino: found.ino };
}

/** Whether a path leads to this file. */
export function leadsTo(path: string, identity: FileIdentity | undefined): boolean {
  const found = identityOf(path);
  return found !== undefined && found.dev === identity?.dev && found.ino === identity.ino;
}

/** Removes a file, unless another one has taken its place. */
export function removeOwn(path: string, identity: FileIdentity | undefined): void {
  if (leadsTo(path, identity)) rmSync(path, { force: true });
}

/** What connecting to a socket says when nobody has it: there is none, or its process has ended. */
const free = ['ENOENT', 'ECONNREFUSED'];

/** Octets of the longest path of a socket on Linux, without the `.new` of one that is being made. */
const longestPath = 103;

/**
 * Checks that no process serves a socket. One that a process left behind when it was killed is free.
 * @param user names who uses the state of this gateway, which may be who serves the socket
 * @throws {PosternError} `configuration` when another gateway serves the socket, or it cannot be reached
 */
export async function demandFree(socket: string, user?: () => string | undefined): Promise<void> {
  if (Buffer.byteLength(socket) > longestPath)
    throw new PosternError(
      'configuration',
      `gateway.admin-socket: ${socket}: a socket may have a path of ${longestPath} bytes at most`,
    );
  const probe = connect(socket);
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  probe.once('connect', () => resolve(undefined));
  probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  const failure = await promise;
  probe.destroy();
  if (failure !== undefined && free.includes(failure)) return;
  const why =
    failure === undefined
      ? `${user?.() ?? 'another gateway'} serves it; stop that one, or give this gateway a socket of its own`
      : `it cannot be reached (${failure}); give this gateway a socket of its own`;
  throw new PosternError('configuration', `gateway.admin-socket: ${socket}: ${why}`);
}
