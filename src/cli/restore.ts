import { PosternError } from '../base/errors.ts';
import { restoreState } from '../base/restore-state.ts';
import { deviceSchema } from '../device/schema.ts';
import { gatewaySchema } from '../gateway/store/schema.ts';
import { headendSchema } from '../headend/schema.ts';
import type { Command } from './runner.ts';

export const restore: Command = {
  summary: 'Takes back a copy of the state of a gateway, head-end or device',
  help: `Usage: postern restore FILE --state STATE

Checks a copy that 'postern backup' made, and puts it in the place of the state file. The party must not run. The present
state file is kept beside, as STATE.replaced-1. If there is a key FILE.key, it becomes STATE.key. Without the key of the gateway
that was backed up, devices are bootstrapped anew.

What happened after the backup is not known afterwards. A device that was bootstrapped since then has another account than
the gateway: after 3 sessions that fail, the gateway has it bootstrapped anew, if the device has a factory secret or its DM
server assists. LwM2M clients register again.

  --state STATE  state file: gateway.state, headend.state or device.state of the configuration`,
  options: { state: { type: 'string' } },
  words: 1,
  async run({ state }, _stop, [file]) {
    if (file === undefined || state === undefined)
      throw new PosternError('malformed', "a file and --state are required; see 'postern restore --help'");
    const { party, aside } = restoreState(file, String(state), [gatewaySchema, headendSchema, deviceSchema]);
    console.log(`the state of the ${party} is restored${aside ? `; the one before is ${aside}` : ''}`);
  },
};
