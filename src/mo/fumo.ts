import { asPosternError, type ErrorCode, PosternError } from '../base/errors.ts';
import { interior, leaf, type ManagementObject } from '../wire/syncml/ddf.ts';
import { MoId } from './identifiers.ts';
import { zeroOrOne } from './occurrence-and-access.ts';

const get = ['Get'] as const;
/** AccessType of leaves that do not exist until a server adds them. */
const named = ['Add', 'Get', 'Replace'] as const;
const settable = ['Get', 'Replace'] as const;
const execute = ['Exec', 'Get', 'Replace'] as const;

/** States of a firmware update (OMA FUMO 1.0, section 6.1). */
export const FumoState = {
  Idle: 10,
  DownloadFailed: 20,
  Downloading: 30,
  Downloaded: 40,
  Ready: 50,
  Updating: 60,
  FailedWithData: 70,
  FailedWithoutData: 80,
  DoneWithData: 90,
  DoneWithoutData: 100,
} as const;

/** Result codes (section 8.2) that Postern reports, also for images. */
export const FumoResult = {
  Ok: 200,
  /** The operation was cancelled. */
  Cancelled: 401,
  /** The digest of the package is wrong. */
  Corrupt: 402,
  /** The package is for another kind of device. */
  Mismatch: 403,
  /** The signature is wrong or missing. */
  NotValidated: 404,
  /** The package is too large, or of a kind that is not supported. */
  NotAcceptable: 405,
  Failed: 410,
  BadUrl: 411,
  ServerUnavailable: 412,
  ServerError: 500,
  NoRoom: 501,
  NetworkFailed: 503,
} as const;

/** An operation that failed with this result code. */
export class FumoRefusal extends PosternError {
  readonly result: number;

  constructor(result: number, message: string, options?: { cause?: unknown }) {
    super('unavailable', message, options);
    this.result = result;
  }
}

/** Result code of a failed download, by error code. */
const resultOfError: Partial<Record<ErrorCode, number>> = {
  full: FumoResult.NoRoom,
  storage: FumoResult.NoRoom,
  tooLarge: FumoResult.NotAcceptable,
  malformed: FumoResult.BadUrl,
  notFound: FumoResult.ServerError,
  forbidden: FumoResult.ServerError,
  timeout: FumoResult.ServerUnavailable,
};

/** The result code for the error that ended a download. */
export function downloadResult(thrown: unknown): number {
  if (thrown instanceof FumoRefusal) return thrown.result;
  return resultOfError[asPosternError(thrown).code] ?? FumoResult.NetworkFailed;
}

/** FUMO: how a device's firmware is updated (OMA Firmware Update Management Object 1.0). */
export const fumo: ManagementObject = {
  id: MoId.Fumo,
  root: interior(get, 'Firmware update', {
    PkgName: leaf('chr', named, 'Name of the update package', zeroOrOne),
    PkgVersion: leaf('chr', named, 'Version of the update package', zeroOrOne),
    Download: interior(execute, 'Downloads the package', {
      PkgURL: leaf('chr', settable, 'URL of the package'),
    }),
    Update: interior(execute, 'Installs the downloaded package', {}),
    DownloadAndUpdate: interior(execute, 'Downloads and installs the package', {
      PkgURL: leaf('chr', settable, 'URL of the package'),
    }),
    State: leaf(
      'int',
      get,
      '10 idle, 20 download failed, 30 downloading, 40 downloaded, 50 ready, 60 updating, 70 to 100 ended',
    ),
    Ext: interior(
      get,
      "Postern's extensions",
      {
        Cancel: leaf('null', ['Exec'], 'Cancels the operation, until the installation begins', zeroOrOne),
        RevocationList: leaf(
          'chr',
          settable,
          'Revocation lists (X.509, PEM) for signers of bundles that are in force. A newer one is written here',
        ),
      },
      zeroOrOne,
    ),
  }),
};
