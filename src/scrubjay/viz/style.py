"""The style sheet of every page and figure, under the one class `sj`.

Three sizes of text, one accent colour, hairlines, and room. Colours are custom properties with a light and a dark
value; data keeps its colours in the dark, save the sequential scale, whose zero is always the background. Printing
is always light.
"""

from __future__ import annotations

from scrubjay.viz.colour import LEVELS, level


def stylesheet() -> str:
    """Return the CSS.

    >>> ".sj-finding" in stylesheet() and "url(" not in stylesheet()
    True
    """
    dark_levels = "".join(
        f".sj .sj-q{step}{{fill:{level(step, dark=True)}}}.sj .sj-s{step}{{stroke:{level(step, dark=True)}}}"
        for step in range(1, LEVELS + 1)
    )
    dark = f"@media screen and (prefers-color-scheme:dark){{{_DARK}{dark_levels}}}"
    return "\n".join([_LIGHT, dark, _TEXT, _FIGURE, _FOREST, _TREE, _CIRCUIT, _PAGE, _PRINT])


_LIGHT = """
.sj{color-scheme:light dark;--sj-paper:#fff;--sj-raised:#f5f7f8;--sj-ink:#1b2227;--sj-soft:#4a555d;--sj-faint:#68747c;
--sj-line:#dde3e6;--sj-rule:#9aa5ad;--sj-accent:#1f5c99;--sj-tint:#eef4fa;--sj-positive:#b3202f;--sj-negative:#2268ae;
--sj-plate:#fff;--sj-green:#1c6f6d;--sj-orange:#9a5b00;--sj-purple:#7b3f98;
--sj-sans:Inter,ui-sans-serif,system-ui,-apple-system,"Segoe UI",Inter,Roboto,"Noto Sans",sans-serif;
--sj-serif:Charter,"Bitstream Charter","Iowan Old Style","Source Serif 4",Georgia,Cambria,serif;
--sj-mono:ui-monospace,"SF Mono","Cascadia Mono","JetBrains Mono",Menlo,Consolas,"Liberation Mono",monospace}
"""
_DARK = """
.sj{--sj-paper:#14191d;--sj-raised:#1a2025;--sj-ink:#e6ebee;--sj-soft:#b4bec5;--sj-faint:#8d99a1;--sj-line:#2c353b;
--sj-rule:#56626a;--sj-accent:#7db4e6;--sj-tint:#182530;--sj-positive:#e2695f;--sj-negative:#5ba3dc;--sj-plate:#1a2025;
--sj-green:#5fb5aa;--sj-orange:#e0a04a;--sj-purple:#c08ddb}
"""
_TEXT = """
.sj{font:400 16px/1.6 var(--sj-sans);color:var(--sj-ink);background:var(--sj-paper);overflow-wrap:anywhere;
font-variant-numeric:tabular-nums;-webkit-text-size-adjust:100%;text-size-adjust:100%}
.sj *,.sj *::before,.sj *::after{box-sizing:border-box}
.sj p{margin:0 0 1em;max-width:68ch}
.sj a{color:var(--sj-accent)}
.sj :focus-visible{outline:2px solid var(--sj-accent);outline-offset:2px;border-radius:2px}
.sj figure{margin:2.2rem 0 2.6rem}
.sj figcaption{margin-top:1rem;max-width:68ch;font-size:14px;line-height:1.5;color:var(--sj-soft)}
.sj figcaption b{font-weight:600;color:var(--sj-ink)}
.sj details{margin:1.2rem 0}
.sj summary{cursor:pointer;font-size:14px;font-weight:550;color:var(--sj-accent);width:fit-content}
.sj-folded{margin:1rem 0 0;padding-left:1.1rem;border-left:2px solid var(--sj-line)}
"""
_FIGURE = """
.sj .sj-title{margin:0 0 .9rem;font-size:15px;font-weight:600;line-height:1.35;max-width:none}
.sj-scroll{overflow-x:auto;max-width:100%}
.sj-drawing{display:block;width:100%;height:auto;font-family:var(--sj-sans)}
.sj-axis{fill:var(--sj-faint)}
.sj-plate{fill:var(--sj-plate);stroke:var(--sj-line)}
.sj-cells path{stroke:var(--sj-paper);stroke-width:1}
.sj-cells .sj-hatch{stroke:var(--sj-rule);stroke-width:1;pointer-events:none}
.sj-cells path:hover,.sj-hit path:hover{stroke:var(--sj-ink)}
.sj-hit path{stroke-width:.12}
.sj-chart-attention .sj-axis{font-family:var(--sj-mono)}
.sj-maps{display:grid;gap:1.6rem 1.8rem}
.sj-map{min-width:0}
.sj .sj-head{margin:0 0 .35rem;font-size:13px;font-weight:600}
.sj-legend{display:flex;flex-wrap:wrap;align-items:center;gap:.5rem 1.4rem;margin-top:1rem;font-size:12px;color:var(--sj-soft)}
.sj-scale{width:15rem;max-width:100%}
.sj-colourbar{display:block;width:100%;height:9px;border-radius:2px;box-shadow:0 0 0 1px var(--sj-line)}
.sj-ends{display:flex;justify-content:space-between;margin-top:.25rem;line-height:1.2}
.sj-note{flex:1 1 16rem}
.sj .sj-strip-of-tokens{max-width:none;margin:0;font:13.5px/2.05 var(--sj-mono)}
.sj-token{display:inline-block;max-width:100%;line-height:1.35;padding:.1em .12em;margin:0 1px;border-radius:3px;box-shadow:0 0 0 1px var(--sj-line);unicode-bidi:isolate}
.sj-missing{background:repeating-linear-gradient(135deg,transparent 0 3px,var(--sj-line) 3px 4px)}
.sj-values .sj-scroll{margin-top:.8rem;max-width:26rem}
.sj table{border-collapse:collapse;font-size:14px;line-height:1.4}
.sj table,.sj th,.sj td{border:0;background:none}
.sj-table{min-width:min(100%,24rem)}
.sj-table caption{caption-side:top;text-align:left;font-size:13px;color:var(--sj-soft);padding-bottom:.5rem}
.sj-table th,.sj-table td{padding:.42rem 1.4rem .42rem 0;text-align:left;vertical-align:top;font-weight:400;overflow-wrap:normal}
.sj-table th:last-child,.sj-table td:last-child{padding-right:0}
.sj-table tbody th{overflow-wrap:anywhere;min-width:7rem}
.sj-table thead th{font-size:12.5px;color:var(--sj-faint);vertical-align:bottom;border-bottom:1px solid var(--sj-rule)}
.sj-table tbody tr+tr>*{border-top:1px solid var(--sj-line)}
.sj-table tbody tr:last-child>*{border-bottom:1px solid var(--sj-rule)}
.sj .sj-number,.sj .sj-table .sj-number{text-align:right;white-space:nowrap}
.sj .sj-centre{text-align:center}
"""
_FOREST = """
.sj .sj-forest{width:100%;table-layout:auto}
.sj-forest th,.sj-forest td{padding:0;text-align:left;font-weight:400;vertical-align:middle}
.sj-forest thead>tr>*{vertical-align:bottom;font-size:12.5px;color:var(--sj-faint)}
.sj-forest tbody th{padding:.42rem 1.2rem .42rem 0;line-height:1.35}
.sj-forest tbody th>span{display:block;width:min(19rem,var(--sj-names));font-size:1em}
.sj-forest thead th{padding-right:1rem}
.sj-forest .sj-plot{position:relative;width:100%;min-width:9rem}
.sj-forest tbody .sj-plot{height:1.9rem}
.sj-forest .sj-number{padding:0 0 0 1.4rem}
.sj-strip{position:absolute;left:0;top:0;width:100%;height:calc(100% + 1px);overflow:visible}
.sj-names{display:block;width:100%;overflow:visible;font:12px var(--sj-sans)}
.sj-zero{stroke:var(--sj-rule)}
.sj-reference{stroke:var(--sj-rule);stroke-dasharray:3 3}
.sj-tick{stroke:var(--sj-rule)}
.sj-band{fill:var(--sj-raised)}
.sj-positive{fill:var(--sj-positive)}
.sj-negative{fill:var(--sj-negative)}
.sj-whisker{stroke:var(--sj-ink);stroke-width:1.5}
.sj-break{fill:none;stroke:var(--sj-ink);stroke-width:1.75;stroke-linejoin:round;stroke-linecap:round}
.sj-dot{fill:var(--sj-accent);stroke:var(--sj-paper);stroke-width:1.5}
.sj-constant{fill:var(--sj-paper);stroke:var(--sj-soft);stroke-width:1.5}
.sj-name{font-weight:500}
.sj-chart-bars .sj-name{font-weight:400}
.sj-remark{font-size:12.5px;color:var(--sj-faint)}
.sj-chart-recovered tbody .sj-plot{height:3rem}
.sj-chart-recovered .sj-whisker{stroke:var(--sj-accent);stroke-width:2}
.sj .sj-key{display:flex;flex-wrap:wrap;gap:.3rem 1.4rem;margin:.9rem 0 0;font-size:12.5px;color:var(--sj-soft);max-width:none}
.sj-key span{display:inline-flex;align-items:center;gap:.45rem}
.sj-under{margin-top:1.8rem}
@media (max-width:640px){
.sj-chart-recovered .sj-forest,.sj-chart-recovered .sj-forest>*{display:block}
.sj-chart-recovered .sj-forest tr{display:grid;grid-template-columns:1fr auto;margin-bottom:.7rem}
.sj-chart-recovered .sj-forest tr>.sj-plot{grid-column:1/-1;grid-row:2;width:auto}
.sj-chart-recovered .sj-forest thead tr,.sj-chart-recovered .sj-forest tfoot tr{margin:0}
.sj-chart-recovered .sj-forest tbody .sj-plot{height:1.9rem}
.sj-forest .sj-plot{min-width:6rem}
.sj-table th,.sj-table td{padding-right:1rem}
.sj-chart-bars .sj-ticks text:nth-of-type(even){display:none}
.sj-chart-bars .sj-forest tbody th>span{width:min(8.5rem,var(--sj-names))}
.sj-chart-recovered .sj-forest tbody th>span{width:auto}
.sj-chart-recovered .sj-forest tbody .sj-number{padding-top:.42rem}
.sj-forest .sj-number{padding-left:.9rem}
}
"""
_TREE = """
.sj .sj-tree,.sj .sj-tree ul{list-style:none;margin:0;padding:0}
.sj .sj-tree ul{margin-left:.75rem;padding-left:0}
.sj .sj-tree li{position:relative;margin:0}
.sj .sj-tree ul>li{padding-left:1.5rem}
.sj-tree ul>li::before{content:"";position:absolute;left:0;top:0;height:1.2rem;width:1.1rem;border-left:1.5px solid var(--sj-rule);
border-bottom:1.5px solid var(--sj-rule);border-bottom-left-radius:6px}
.sj-tree ul>li:not(:last-child)::after{content:"";position:absolute;left:0;top:0;bottom:0;border-left:1.5px solid var(--sj-rule)}
.sj-node{display:flex;flex-wrap:wrap;align-items:baseline;gap:.1rem .8rem;padding:.35rem 0}
.sj-label{font:500 13px/1.5 var(--sj-mono);padding:.1rem .5rem;border:1px solid var(--sj-line);border-radius:5px;
background:var(--sj-raised);overflow-wrap:anywhere}
.sj-words{font-size:14.5px;color:var(--sj-soft);max-width:56ch}
"""
_CIRCUIT = """
.sj-blue{--sj-mark:var(--sj-negative)}.sj-red{--sj-mark:var(--sj-positive)}.sj-green{--sj-mark:var(--sj-green)}
.sj-orange{--sj-mark:var(--sj-orange)}.sj-purple{--sj-mark:var(--sj-purple)}.sj-grey{--sj-mark:var(--sj-faint)}
.sj-box rect{fill:var(--sj-raised);stroke:var(--sj-mark,var(--sj-rule));rx:5px}
.sj-box:hover rect{stroke-width:2.5}
.sj-box text{fill:var(--sj-ink)}
.sj-box .sj-small{fill:var(--sj-soft)}
.sj-box .sj-mono{font-family:var(--sj-mono);font-weight:600}
.sj-box .sj-letters{fill:var(--sj-mark,var(--sj-soft));font-weight:600}
.sj-changed rect{stroke-dasharray:5 3;stroke-width:1.75}
.sj-edge{fill:none;stroke:var(--sj-rule)}
.sj-arrow{fill:var(--sj-soft)}
.sj-outline{font-size:13px;line-height:1.5}
.sj .sj-outline details{margin:0}
.sj .sj-outline summary{font:inherit;color:inherit;width:auto;list-style-position:outside}
.sj-outline summary:hover{background:var(--sj-tint)}
.sj-lines details,.sj-lines div{padding-left:1rem}
.sj-lines summary{margin-left:-1rem;padding-left:1rem;list-style:none;position:relative}
.sj-lines summary::-webkit-details-marker{display:none}
.sj-lines summary::before{content:"▸";position:absolute;left:.1rem;color:var(--sj-faint)}
.sj-lines details[open]>summary::before{content:"▾"}
.sj-lines details details,.sj-lines details div{border-left:1px solid var(--sj-line)}
.sj-outline b{font:600 12.5px/1.5 var(--sj-mono)}
.sj-outline i{font-style:normal;font-size:11.5px;color:var(--sj-faint)}
.sj-outline i::before{content:"["}.sj-outline i::after{content:"]"}
.sj-outline small{font-size:11.5px;color:var(--sj-soft)}
.sj-outline em{font:600 11.5px/1.5 var(--sj-mono);color:var(--sj-mark);border:1px solid var(--sj-mark);border-radius:3px;padding:0 .25em}
.sj-outline em.sj-changed{border-style:dashed}
.sj-outline a{text-decoration:none}
.sj-outline :target{background:var(--sj-tint)}
.sj .sj-alike{margin:.4rem 0;color:var(--sj-soft)}
.sj .sj-layer{margin:.5rem 0}
.sj .sj-layer>summary{font-weight:600;list-style-position:inside}
.sj-key svg{width:14px;height:14px}
.sj-key rect{rx:2px}
"""
_PAGE = """
.sj-page{margin:0;padding:clamp(1.6rem,5vw,4.5rem) clamp(1rem,4vw,3rem) 3rem}
.sj-masthead,.sj-columns,.sj-footer{max-width:74rem;margin-inline:auto}
.sj .sj-brand{display:flex;align-items:center;gap:.45rem;margin:0 0 2.2rem;font-size:13.5px;color:var(--sj-faint)}
.sj-mark{width:1.35rem;height:1.35rem;fill:none;stroke:var(--sj-accent);stroke-width:1.9;stroke-linecap:round;stroke-linejoin:round}
.sj-wordmark{font-weight:650;color:var(--sj-ink);letter-spacing:-.005em}
.sj-kind::before{content:"/";margin-right:.45rem;color:var(--sj-rule)}
.sj-page h1{margin:0 0 1.1rem;max-width:24ch;font:600 clamp(1.9rem,1.3rem + 2.4vw,2.9rem)/1.14 var(--sj-serif);letter-spacing:-.012em;text-wrap:balance}
.sj-summary p{max-width:62ch;font-size:1.13rem;line-height:1.6;color:var(--sj-soft)}
.sj-columns{margin-top:2.8rem;border-top:1px solid var(--sj-line);padding-top:2.2rem}
.sj-contents{margin-bottom:2.6rem;font-size:14px}
.sj .sj-contents-title{margin:0 0 .5rem;font-size:12.5px;color:var(--sj-faint)}
.sj-contents ol{list-style:none;margin:0;padding:0}
.sj-contents a{display:flex;gap:.7rem;padding:.28rem 0;line-height:1.4;color:var(--sj-soft);text-decoration:none}
.sj-contents a:hover{color:var(--sj-accent)}
.sj-index{color:var(--sj-faint);font-weight:400}
.sj-page main{min-width:0}
.sj-page section{margin-bottom:4.2rem}
.sj-page section>h2{display:flex;gap:.75rem;margin:0 0 1rem;font:600 1.55rem/1.25 var(--sj-serif);letter-spacing:-.008em;text-wrap:balance}
.sj-page section:target>h2{color:var(--sj-accent)}
.sj .sj-finding{margin:0 0 1.7rem;padding:.95rem 1.25rem;max-width:none;border-left:3px solid var(--sj-accent);
background:var(--sj-tint);font-size:1.08rem;line-height:1.55;border-radius:0 5px 5px 0}
.sj-footer{margin-top:1rem;padding-top:1.8rem;border-top:1px solid var(--sj-line);font-size:13.5px;color:var(--sj-soft)}
.sj-footer h2{margin:0 0 1rem;font-size:13.5px;font-weight:600;color:var(--sj-ink)}
.sj-footer dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr));gap:.9rem 2.4rem;margin:0 0 2rem}
.sj-footer dt{font-size:12.5px;color:var(--sj-faint)}
.sj-footer dd{margin:0;font:12.5px/1.5 var(--sj-mono)}
.sj .sj-colophon{margin:0;font-size:12.5px;color:var(--sj-faint)}
@media (min-width:1080px){
.sj-columns:has(>.sj-contents){display:grid;grid-template-columns:12.5rem minmax(0,1fr);gap:3.6rem}
.sj-contents{position:sticky;top:2rem;align-self:start;margin:0}
}
"""
_PRINT = """
@media print{
.sj{font-size:10.5pt;print-color-adjust:exact;-webkit-print-color-adjust:exact}
.sj-page{padding:0}
.sj-contents{display:none}
.sj-columns,.sj-columns:has(>.sj-contents){display:block}
.sj figure,.sj-finding,.sj-forest tr,.sj-map{break-inside:avoid}
.sj-page h2{break-after:avoid}
.sj-scroll{overflow:visible}
.sj-drawing{min-width:0!important}
.sj details::details-content{content-visibility:visible;height:auto}
}
@page{margin:18mm 16mm}
"""
