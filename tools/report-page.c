/* SPDX-License-Identifier: Apache-2.0 */
/* The page around the sections: no script, nothing that is fetched. */
#include <string.h>

#include "html.h"
#include "report.h"

/*
 * Colours are variables, so that dark is one block. Whatever a colour says is
 * said by a pattern, a label or a figure as well. Backgrounds carry meaning, and
 * are therefore printed.
 */
static const char style[] =
	":root{color-scheme:light dark;--ground:#fff;--panel:#f6f8fa;--ink:#1f2328;"
	"--soft:#59636e;--line:#d1d9e0;--blue:#0969da;--orange:#bc4c00;--green:#1a7f37;"
	"--package:#dbe9fb;--stdlib:#fdeacb;--programs:#dcf1e0;--other:#e8eaed;"
	"--hatch:rgba(9,60,140,.5);--halo:rgba(255,255,255,.82)}\n"
	"@media (prefers-color-scheme:dark){:root{--ground:#0d1117;--panel:#161b22;"
	"--ink:#e6edf3;--soft:#9da7b3;--line:#30363d;--blue:#4493f8;--orange:#e08a3e;"
	"--green:#3fb950;--package:#172f50;--stdlib:#47330f;--programs:#123b22;"
	"--other:#262b33;--hatch:rgba(140,190,255,.42);--halo:rgba(13,17,23,.78)}}\n"
	"*{box-sizing:border-box}\n"
	"html{-webkit-text-size-adjust:100%}\n"
	"body{margin:0 auto;padding:24px 20px 40px;max-width:1080px;background:var(--ground);"
	"color:var(--ink);font:15px/1.5 system-ui,-apple-system,\"Segoe UI\",\"DejaVu Sans\","
	"Helvetica,Arial,sans-serif;-webkit-print-color-adjust:exact;"
	"print-color-adjust:exact}\n"
	"h1{font-size:26px;line-height:1.25;margin:0 0 14px;overflow-wrap:anywhere}\n"
	"h2{font-size:20px;margin:0 0 6px}h3{font-size:15px;margin:20px 0 8px}\n"
	"section{margin-top:40px;padding-top:20px;border-top:1px solid var(--line)}\n"
	"p{margin:6px 0 14px;max-width:72ch}.note,small{color:var(--soft);font-size:13px}\n"
	"small{display:block;font-weight:400}\n"
	".warning{border-left:4px solid var(--orange);padding-left:10px}\n"
	"code{font:13px ui-monospace,\"DejaVu Sans Mono\",Menlo,Consolas,monospace;"
	"overflow-wrap:anywhere}\n"
	".figures{display:grid;grid-template-columns:repeat(4,1fr);"
	"gap:10px;margin-bottom:20px}\n"
	".figure{background:var(--panel);border:1px solid var(--line);border-radius:6px;"
	"padding:8px 12px}.what{display:block;color:var(--soft);font-size:13px}\n"
	".big{font-size:22px;font-weight:600;white-space:nowrap}\n"
	"dl{margin:0}dl div{display:grid;grid-template-columns:110px 1fr;gap:12px;"
	"padding:4px 0}dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}\n"
	/* Tables */
	".scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:14px}\n"
	"th,td{padding:5px 10px;text-align:left;border-bottom:1px solid var(--line);"
	"vertical-align:top}thead th{color:var(--soft);font-weight:400;vertical-align:bottom}\n"
	"tbody th,tfoot th{font-weight:400;overflow-wrap:anywhere;min-width:120px}\n"
	"tfoot th,tfoot td,tr.own th{font-weight:600}\n"
	".num{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}\n"
	"thead .num{white-space:normal}\n"
	".bar>span:last-child{display:inline-block;min-width:64px}\n"
	".track{display:inline-block;vertical-align:middle;width:110px;height:10px;"
	"border:1px solid var(--line);background:var(--panel);text-align:left;overflow:hidden}\n"
	".level{display:block;height:100%;background:var(--blue)}\n"
	".groups .track{width:64px}.groups .bar>span:last-child{min-width:56px}\n"
	".track.wide{display:flex;width:220px;margin-top:5px}.track .level{flex:none}"
	".stripe{background:repeating-linear-gradient(45deg,var(--blue) 0 2px,"
	"var(--panel) 2px 6px)}.num>.key{display:inline-block;height:10px;margin-right:6px}"
	".scroll+.scroll{margin-top:22px}\n"
	".slim table{max-width:640px}data{white-space:nowrap}\n"
	"details{margin-top:10px}summary{cursor:pointer;padding:6px 0;color:var(--blue)}\n"
	/* Treemap */
	".map{position:relative;width:100%;aspect-ratio:16/9;margin:0 0 18px}\n"
	".cell{position:absolute;padding:1px;container-type:size}\n"
	".tile{position:relative;width:100%;height:100%;overflow:hidden;"
	"border:1px solid var(--soft);background:var(--other)}\n"
	".package .tile{background:var(--package)}.stdlib .tile{background:var(--stdlib)}"
	".programs .tile{background:var(--programs)}\n"
	".stdlib .tile,.key.stdlib{border:3px double var(--soft)}"
	".programs .tile,.key.programs{border-style:dashed}"
	".other .tile,.rest .tile,.key.other{border-style:dotted}\n"
	".tile .fill{position:absolute;bottom:0}"
	".fill{border-top:2px solid var(--ink);"
	"background:repeating-linear-gradient(45deg,var(--hatch) 0 2px,transparent 2px 7px)}"
	".fill.set1{background:repeating-linear-gradient(-45deg,var(--hatch) 0 1px,"
	"transparent 1px 4px)}.fill.set2{background:repeating-linear-gradient(90deg,"
	"var(--hatch) 0 2px,transparent 2px 5px)}\n"
	".label{position:relative;padding:5px 7px;font-size:13px;line-height:1.35}\n"
	".label b,.more{display:table;max-width:100%;background:var(--halo);padding:0 3px;"
	"border-radius:2px;overflow-wrap:anywhere}"
	".label b{display:block;width:fit-content;white-space:nowrap;overflow:hidden;"
	"text-overflow:ellipsis}\n"
	"@container (max-width:100px) or (max-height:66px){.label{padding:2px 3px;"
	"font-size:11px}.more{display:none}}\n"
	"@container (max-width:62px) or (max-height:19px){.label{display:none}}\n"
	/* Timeline */
	".lanes{margin-bottom:10px}\n"
	".lane{display:grid;grid-template-columns:1fr auto;column-gap:12px;font-size:14px;"
	"margin-bottom:10px}.name b{font-weight:600}.sum{text-align:right;font-variant-numeric:tabular-nums}.sum small{display:inline}\n"
	".lane svg{grid-column:1/3;display:block;width:100%;height:44px;"
	"background:var(--panel)}.lane .before{fill:var(--soft);fill-opacity:.22}\n"
	".lane path{fill:var(--blue)}.lane .worker path{fill:var(--green)}"
	".lane .warmer path{fill:var(--orange)}\n"
	".lane path.axis{fill:none!important;stroke:var(--soft);stroke-width:1;"
	"vector-effect:non-scaling-stroke}\n"
	".lanes .axis span{flex:0 0 0;display:flex;justify-content:center;white-space:nowrap}"
	".lanes div.axis{display:flex;justify-content:space-between;color:var(--soft);"
	"font-size:13px}.lanes .axis span:first-child{justify-content:flex-start}"
	".lanes .axis span:last-child{justify-content:flex-end}\n"
	".columns{display:grid;grid-template-columns:3fr 2fr;gap:32px}\n"
	/* Coverage */
	".overlap{display:flex;height:26px;border:1px solid var(--soft)}"
	".overlap span,.key{display:block}\n"
	".missing{background:var(--ground)}.used{background:var(--blue)}"
	".waste{background:repeating-linear-gradient(45deg,var(--soft) 0 2px,"
	"var(--panel) 2px 7px)}.overlap .used,.overlap .waste{border-left:1px solid "
	"var(--soft)}\n"
	".legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 22px;padding:0;"
	"margin:8px 0 14px;font-size:14px}.legend li{display:flex;align-items:center;gap:7px}"
	".key{width:22px;height:13px;border:1px solid var(--soft)}\n"
	".key.package{background:var(--package)}.key.stdlib{background:var(--stdlib)}"
	".key.programs{background:var(--programs)}.key.other{background:var(--other)}"
	".key.fill{border-top:2px solid var(--ink)}\n"
	"footer{margin-top:40px;color:var(--soft);font-size:13px}\n"
	"@media (max-width:760px){.columns{grid-template-columns:minmax(0,1fr);gap:0}}\n"
	"@media (max-width:560px){body{padding:16px 12px 32px;font-size:15px}"
	".map{aspect-ratio:3/4}.figures{grid-template-columns:1fr 1fr}.big{font-size:19px}"
	"dl div{grid-template-columns:1fr;gap:0}th,td{padding:5px 6px}.track{width:54px}.track.wide{width:110px}"
	".bar>span:last-child{min-width:52px}"
	/* The rest is reached by scrolling sideways; these two matter least. */
	".groups th:nth-child(2),.groups td:nth-child(2),.groups th:nth-child(3),"
	".groups td:nth-child(3){display:none}.groups tbody th{min-width:92px}}\n"
	"@media print{body{max-width:none;padding:0;font-size:12px}"
	"section,.lane,tr,.map{break-inside:avoid}section{break-inside:auto}"
	"h2,h3{break-after:avoid}.scroll{overflow:visible}}\n";

void report_write_page(const struct report *report, FILE *html)
{
	const char *slash = strrchr(report->name, '/');

	html_raw(
		html,
		"<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
		"<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
		/* Whatever the page holds, it loads and runs nothing. */
		"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
		"style-src 'unsafe-inline'\">\n<title>");
	html_string(html, slash && slash[1] ? slash + 1 : report->name);
	html_raw(html, " \xe2\x80\x93 thaw report</title>\n<style>\n");
	html_raw(html, style);
	html_raw(html, "</style>\n</head>\n<body>\n");
	report_write_head(report, html);
	html_raw(html, "<main>\n");
	report_write_live(report, html);
	report_write_treemap(report, html);
	report_write_timeline(report, html);
	report_write_coverage(report, html);
	report_write_latency(report, html);
	report_write_bench(report, html);
	html_raw(html, "</main>\n<footer>Made by thaw " THAW_VERSION_STRING ".</footer>\n"
		       "</body>\n</html>\n");
}
