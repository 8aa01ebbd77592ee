import { PosternError } from '../base/errors.ts';
import { DmStatus } from './status.ts';

/** A command that fails with a DM status which the general table of errors does not have. */
export class DmError extends PosternError {
  readonly status: number;

  constructor(status: number, message: string) {
    super(status === DmStatus.PermissionDenied ? 'forbidden' : 'malformed', message);
    this.status = status;
  }

  override get dmStatus(): number {
    return this.status;
  }
}
