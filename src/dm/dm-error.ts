import { PosternError } from '../base/errors.ts';
import { DmStatus } from './status.ts';

/** The failure of a command with a DM status of its own, where no error code of PosternError stands for that status. */
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
