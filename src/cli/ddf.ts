import { PosternError } from '../base/errors.ts';
import { managementObjects } from '../mo/catalogue.ts';
import { ddfDocument, indented } from '../wire/syncml/ddf-document.ts';
import type { Command } from './runner.ts';

const names = Object.keys(managementObjects);

export const ddf: Command = {
  summary: 'Prints the description (DDF) of a management object',
  help: `Usage: postern ddf --mo NAME

Prints the DDF (XML, as OMA DM defines it) of a management object of the gateway or the device:

  ${names.join(', ')}

  --mo NAME  name of the object`,
  options: { mo: { type: 'string' } },
  async run({ mo }) {
    const object =
      typeof mo === 'string' && Object.hasOwn(managementObjects, mo) ? managementObjects[mo] : undefined;
    if (!object)
      throw new PosternError(
        'configuration',
        `--mo: expected one of ${names.join(', ')}, found ${mo === undefined ? 'nothing' : `'${mo}'`}`,
      );
    console.log(indented(ddfDocument(object, String(mo))));
  },
};
