import * as v from 'valibot';
import { deviceIdRule, isDeviceId } from './resources.ts';

/** A device ID in a configuration. */
export const deviceId = v.pipe(
  v.string(),
  v.check((id) => isDeviceId(id), deviceIdRule),
);
