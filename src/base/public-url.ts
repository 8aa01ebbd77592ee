/** A URL as logs and status may show it: without user name, password and query, which can hold secrets. */
export function publicUrl(text: string): string {
  if (!URL.canParse(text)) return 'no URL';
  const url = new URL(text);
  url.username = '';
  url.password = '';
  url.search = '';
  return url.href;
}
