/** A URL as logs and status may show it: without user name, password, query and fragment, which can hold secrets. */
export function publicUrl(text: string): string {
  if (!URL.canParse(text)) return 'no URL';
  const url = new URL(text);
  url.username = '';
  url.password = '';
  url.search = '';
  url.hash = '';
  return url.href;
}

/** A text with the user names and passwords of all URLs in it replaced by an ellipsis. */
export const withoutCredentials = (text: string): string =>
  text.replace(/([a-z][a-z0-9+.-]*:\/\/)[^/?#\s"'<>]*@/gi, '$1…@');
